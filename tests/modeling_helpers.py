"""Tiny models that the tests share, and every combination of settings that makes sense."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration

PAD, GO, END = 0, 2, 3
FIRST_WORD = 4
VOCABULARY = 19
WINDOWS = ("global", "recent", "local-m", "local-p")
# attention, window and input feeding of the models that copy too
COPYING = (
    ("dot", "global", False),
    ("general", "local-p", True),
    ("concat", "recent", False),
    ("additive", "global", False),
)

Settings = dict[str, Any]


def tiny_config(**changes: Any) -> RnnSeq2SeqConfig:
    """A configuration of two layers on each side that runs in a millisecond."""
    settings: Settings = {
        "vocab_size": VOCABULARY,
        "embedding_size": 6,
        "hidden_size": 8,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "attention_window_size": 2,
        "dropout": 0.0,
        "tie_word_embeddings": False,
    }
    return RnnSeq2SeqConfig(**settings | changes)


def tiny_model(seed: int = 0, **changes: Any) -> RnnSeq2SeqForConditionalGeneration:
    """A model ready for evaluation, its weights large enough for attention to be far from even."""
    model = RnnSeq2SeqForConditionalGeneration(tiny_config(**changes)).eval()
    randomise(model, seed)
    return model


def randomise(model: torch.nn.Module, seed: int = 0, bound: float = 0.9) -> None:
    """Draw every weight anew, biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-bound, bound, generator=generator)


def random_tokens(*shape: int, seed: int = 0, vocabulary: int = VOCABULARY) -> Tensor:
    """Words, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_WORD, vocabulary, shape, generator=generator)


# Three items of a batch, and where padding may stand.
LENGTHS = (5, 3, 1)
SOURCE = random_tokens(3, 5, seed=1)


def laid_out(places: list[list[int]], width: int) -> tuple[Tensor, Tensor]:
    """The real tokens of each item of SOURCE at given places, words on the padding as a trap."""
    tokens, mask = random_tokens(3, width, seed=9), torch.zeros(3, width, dtype=torch.long)
    for item, spots in enumerate(places):
        tokens[item, spots] = SOURCE[item, : len(spots)]
        mask[item, spots] = 1
    return tokens, mask


RIGHT = laid_out([list(range(length)) for length in LENGTHS], 5)
LEFT = laid_out([list(range(5 - length, 5)) for length in LENGTHS], 5)
HOLED = laid_out([[1, 2, 4, 7, 8], [0, 5, 6], [3]], 10)


def combinations() -> Iterator[Settings]:
    """Every attention with every window, with and without input feeding, some with copying."""
    yield {"attention": "none"}
    for attention in ("dot", "general", "concat"):
        for window in WINDOWS:
            for feeding in (False, True):
                yield {
                    "attention": attention,
                    "attention_window": window,
                    "input_feeding": feeding,
                }
    for window in ("global", "recent"):
        yield {"attention": "additive", "attention_window": window}
    for attention, window, feeding in COPYING:
        yield {
            "attention": attention,
            "attention_window": window,
            "input_feeding": feeding,
            "copy": True,
        }


def variants(bidirectional: bool = False) -> list[Settings]:
    """Every combination with each cell, and with both kinds of encoder if asked."""
    return [
        {"cell_type": cell, "bidirectional": both, **settings}
        for cell in ("lstm", "gru")
        for both in ((False, True) if bidirectional else (False,))
        for settings in combinations()
    ]


def name_of(settings: Settings) -> str:
    """A readable test id: `lstm-bidirectional-dot-recent-feeding`."""
    words = [name if value is True else value for name, value in settings.items() if value]
    return "-".join(str(word) for word in words)
