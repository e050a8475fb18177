"""Make a vocabulary: `chatbot train-tokenizer` under another name.

    python scripts/train_tokenizer.py mine.jsonl --output tokenizers/mine
    python scripts/train_tokenizer.py mine.jsonl --output tokenizers/char --level char --keep-case

`--help` lists the options.
"""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-tokenizer", *sys.argv[1:]]))
