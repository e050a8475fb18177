"""Chat in the browser: `chatbot serve` under another name.

    python scripts/serve.py
    python scripts/serve.py runs/mine/model --port 8000 --no-browser

`--help` lists the options.
"""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
