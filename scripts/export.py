"""Write a model for onnxruntime, or in int8: `chatbot export` under another name.

    python scripts/export.py runs/mine/model --to onnx --output runs/mine/onnx
    python scripts/export.py runs/mine/model --to int8 --output runs/mine/int8 --data data/mine

`--help` lists the options.
"""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
