"""Evaluate a model: `chatbot evaluate` under another name.

    python scripts/evaluate.py runs/mine/model data/mine
    python scripts/evaluate.py runs/mine/model data/mine --output runs/mine/evaluation
    python scripts/evaluate.py runs/mine/model data/mine --output b --compare runs/other/model

`--help` lists the options.
"""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
