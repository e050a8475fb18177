"""Measure what a model says and write its card.

    chatbot evaluate runs/released/model data/released --output runs/released/evaluation
    python scripts/write_card.py runs/released/model owner/wren --prompts scripts/prompts.txt \\
        --evaluation runs/released/evaluation --training "Trained for an hour on two cores ..."
"""

import argparse
from pathlib import Path

from chatbot.checkpoints import load_chatbot
from chatbot.hub import record_of
from chatbot.hub_card import render_card
from chatbot.tokenization import load_tokenizers

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", type=Path, help="folder of the model")
parser.add_argument("repo_id", metavar="owner/name", help="its name on the Hub")
parser.add_argument("--prompts", type=Path, help="file with a prompt in each line")
parser.add_argument("--evaluation", type=Path, help="folder that `chatbot evaluate` wrote")
parser.add_argument("--training", help="a paragraph on how it was trained")

if __name__ == "__main__":
    options = vars(parser.parse_args())
    folder, repo_id = options.pop("model"), options.pop("repo_id")
    model, _ = load_chatbot(folder)
    card = render_card(model, load_tokenizers(folder), repo_id, record_of(folder), **options)
    (folder / "README.md").write_text(card, "utf-8")
    print(f"{folder / 'README.md'} is written")
