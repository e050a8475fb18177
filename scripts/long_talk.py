"""Whether a long conversation is better carried on, or cut and read again: perplexity by turn.

    python scripts/long_talk.py DATA [--model MODEL]

DATA is a folder that `chatbot prepare` wrote. `--join 10` joins so many dialogues end to end, which
gives longer ones than there are, of many subjects.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from chatbot.checkpoints import load_chatbot
from chatbot.decoding import read_labels
from chatbot.incremental import ConversationReader
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import encode_reply

TURNS = (2, 4, 8, 12, 16, 20, 30, 50, 100, 1000)  # the last of each group
Chatbot = tuple[RnnSeq2SeqForConditionalGeneration, PreTrainedTokenizerFast]


def conversations(data: Path, join: int, limit: int) -> Iterator[list[dict[str, Any]]]:
    """The validation dialogues, `join` after one another as one."""
    files = sorted((data / "dialogues").glob("validation-*.jsonl"))
    lines = chain.from_iterable(file.read_text("utf-8").splitlines() for file in files)
    dialogues = (json.loads(line)["messages"] for line in islice(lines, limit * join))
    while joined := list(chain.from_iterable(islice(dialogues, join))):
        yield joined


def by_turn(chatbot: Chatbot, data: Path, join: int, limit: int) -> dict[int, list[float]]:
    """Nats carried, nats cut, and tokens, of the replies up to each of `TURNS`."""
    model, tokenizer = chatbot
    longest = model.config.max_source_positions
    sums: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for messages in conversations(data, join, limit):
        readers = [ConversationReader(*chatbot, longest, carry=carry) for carry in (True, False)]
        for place, message in enumerate(messages):
            if message["role"] != "assistant" or not place:
                continue
            labels = torch.tensor([encode_reply(tokenizer, message["content"], 40)])
            group = sums[next(end for end in TURNS if place <= end)]
            for number, reader in enumerate(readers):
                read = reader.read(messages[:place])
                group[number] += float(read_labels(model, labels, encoder_outputs=read)[1].sum())
            group[2] += labels.numel()
    return dict(sorted(sums.items()))


def print_turns(sums: dict[int, list[float]]) -> None:
    """A row for each group of turns."""
    print("| turns | tokens | carried | cut and read again | ratio |\n|---|---|---|---|---|")
    whole = [sum(group) for group in zip(*sums.values(), strict=True)]
    for name, (carried, cut, tokens) in [*sums.items(), ("all", whole)]:
        on, again = math.exp(carried / tokens), math.exp(cut / tokens)
        print(f"| to {name} | {tokens:,.0f} | {on:.2f} | {again:.2f} | {on / again:.3f} |")


def main() -> None:
    """Parse, call."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, help="None: the shipped model")
    parser.add_argument("--join", type=int, default=1)
    parser.add_argument("--limit", type=int, default=200, help="conversations at most")
    options = parser.parse_args()
    started = time.process_time()
    print_turns(by_turn(load_chatbot(options.model), options.data, options.join, options.limit))
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
