"""Measure perplexity: `chatbot evaluate` under another name.

    python scripts/evaluate.py runs/mine/model data/mine
    python scripts/evaluate.py runs/mine/model data/mine --split validation

`--help` lists the options.
"""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
