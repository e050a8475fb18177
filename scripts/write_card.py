"""Measure a model and write its card.

    python scripts/write_card.py hub_config/pretrained data/released scripts/prompts.txt \\
        --training "Trained for an hour on two cores ..."
"""

import argparse
from pathlib import Path

from chatbot.hub import write_card

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", type=Path, help="folder of the model")
parser.add_argument("data", type=Path, help="folder that `chatbot prepare` wrote")
parser.add_argument("prompts", type=Path, help="file with a prompt in each line")
parser.add_argument("--training", required=True, help="a paragraph on how it was trained")

if __name__ == "__main__":
    options = parser.parse_args()
    write_card(options.model, options.data, options.prompts, options.training)
    print(f"{options.model / 'README.md'} is written")
