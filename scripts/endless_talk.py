"""What a turn costs in a conversation that does not end: CPU time, and what a reply looks at.

    python scripts/endless_talk.py                              10,000 turns; a table
    python scripts/endless_talk.py --picture docs/endless.png   and a picture

Four ways of the same size, new weights, one thread, twelve words each way, each reply of 12 tokens:

- carried: a unidirectional encoder goes on where it stopped, attention sees the `recent` 32 tokens
- cut: a global window; the newest 96 tokens are read again for each reply
- all: a global window; the whole conversation is read again for each reply
- BART: transformers' own, which reads the whole conversation again, as its encoder must

The last two stop at --limit seconds a turn.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import torch
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from chatbot.checkpoints import load_chatbot
from chatbot.incremental import ConversationReader
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import encode_context

REPLY_TOKENS, WINDOW, BUDGET = 12, 32, 96
FOREVER = 1 << 30  # tokens
TURNS = (1, 10, 100, 1000, 10_000)
WORDS = ["the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are"]
Messages = list[dict[str, str]]
# Answers a conversation; returns the bytes that a reply looks at.
Way = Callable[[Messages], int]


def said(turn: int) -> str:
    """Twelve words, other ones each turn."""
    return " ".join(WORDS[(turn * 7 + place * place) % len(WORDS)] for place in range(12))


def recurrent(tokenizer: PreTrainedTokenizerFast, window: str, longest: int, carry: bool) -> Way:
    """Ours, 384 wide, as `ConversationReader` reads for it."""
    sizes = {"embedding_size": 384, "hidden_size": 384, "attention_window_size": WINDOW}
    config = RnnSeq2SeqConfig(
        vocab_size=len(tokenizer), **sizes, bidirectional=False, attention_window=window
    )
    model = RnnSeq2SeqForConditionalGeneration(config).eval()
    print(f"ours ({window}): {model.num_parameters():,} parameters")
    reader = ConversationReader(model, tokenizer, longest, carry)

    def answer(messages: Messages) -> int:
        if not carry and longest == FOREVER:
            reader.snapshots.clear()
        read = reader.read(messages)
        kept = sum(part.numel() * part.element_size() for part in read.values())
        model.generate(encoder_outputs=read, **LENGTH)
        return kept

    return answer


def bart(tokenizer: PreTrainedTokenizerFast) -> Way:
    """Two layers on each side, 256 wide: about as many parameters without those of positions."""
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in SIDE}
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=256, max_position_embeddings=1 << 17, **sides,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2,
        forced_eos_token_id=None,
    )  # fmt: skip
    model = BartForConditionalGeneration(config).eval()
    positions = 2 * model.model.encoder.embed_positions.weight.numel()
    print(f"BART: {model.num_parameters() - positions:,} parameters beside those of positions")

    def answer(messages: Messages) -> int:
        tokens = torch.tensor([encode_context(tokenizer, messages, FOREVER)])
        said = model.generate(tokens, **LENGTH, return_dict_in_generate=True)
        cache = said.past_key_values.cross_attention_cache
        parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return sum(part.numel() * part.element_size() for part in parts)

    return answer


SIDE = [("layers", 2), ("attention_heads", 4), ("ffn_dim", 1024)]
LENGTH = {"max_new_tokens": REPLY_TOKENS, "min_new_tokens": REPLY_TOKENS, "do_sample": False}


def turns(way: Way, last: int, limit: float) -> Iterator[tuple[int, float, int]]:
    """Number, CPU seconds and bytes of each turn."""
    messages: Messages = []
    for turn in count(1):
        messages.append({"role": "user", "content": said(2 * turn)})
        started = time.process_time()
        kept = way(messages)
        seconds = time.process_time() - started
        messages.append({"role": "assistant", "content": said(2 * turn + 1)})
        yield turn, seconds, kept
        if turn == last or seconds > limit:
            return


def main() -> None:
    """Parse, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=1.0, help="CPU seconds of a turn (1)")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    _, tokenizer = load_chatbot()
    ways = {
        "carried": recurrent(tokenizer, "recent", WINDOW, True),
        "cut": recurrent(tokenizer, "global", BUDGET, False),
        "all": recurrent(tokenizer, "global", FOREVER, False),
        "BART": bart(tokenizer),
    }
    measured = {}
    for name, way in ways.items():
        way([{"role": "user", "content": said(0)}])  # the first call is slower
        measured[name] = list(turns(way, options.turns, options.limit))
        print(f"\n{name}: {len(measured[name]):,} turns")
        print(f"{'to turn':>10}{'CPU ms a turn':>16}{'kB of context':>14}")
        for start, end in zip((0, *TURNS), TURNS, strict=False):
            if part := measured[name][start:end]:
                mean = 1e3 * sum(seconds for _, seconds, _ in part) / len(part)
                print(f"{part[-1][0]:>10,}{mean:>16.1f}{part[-1][2] / 1e3:>14.0f}", flush=True)
    if options.picture:
        draw(measured, options.picture)


def draw(measured: dict[str, list[tuple[int, float, int]]], file: Path) -> None:
    """CPU milliseconds of a turn against its number, both by powers of ten."""
    from matplotlib.figure import Figure

    figure = Figure((7, 4), layout="constrained")
    axes = figure.subplots()
    for name, rows in measured.items():
        group = max(1, len(rows) // 100)
        parts = [rows[at : at + group] for at in range(0, len(rows), group)]
        means = [1e3 * sum(row[1] for row in part) / len(part) for part in parts]
        axes.plot([part[-1][0] for part in parts], means, label=name)
    axes.set(xscale="log", yscale="log", xlabel="turn", ylabel="CPU ms a turn")
    axes.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
