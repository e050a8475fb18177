"""Make a dataset of conversations: `chatbot prepare` under another name.

    python scripts/prepare_data.py mine.jsonl --output data/mine
    python scripts/prepare_data.py mine.jsonl --output data/mine --vocab-size 2000 --overwrite

`--help` lists the options.
"""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
