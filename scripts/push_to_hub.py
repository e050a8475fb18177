"""Publish a model on the Hub: the same as `chatbot push`.

python scripts/push_to_hub.py runs/mine/model owner/name --private --dry-run
python scripts/push_to_hub.py runs/mine/model owner/name --space
"""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    sys.exit(main(["push", *sys.argv[1:]]))
