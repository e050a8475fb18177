"""Train a model: `chatbot train` under another name.

    python scripts/train.py scripts/configs/tiny.yaml
    python scripts/train.py scripts/configs/tiny.yaml --data data/mine --output runs/mine
    python scripts/train.py scripts/configs/tiny.yaml --data data/mine --output runs/mine --resume

`--help` lists the options.
"""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    # into argv itself, which is where the command to go on with is read from
    sys.argv.insert(1, "train")
    sys.exit(main())
