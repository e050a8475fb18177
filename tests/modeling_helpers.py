"""Tiny models that the tests share, and every combination of settings that makes sense."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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


# Where the package is not installed, the code that was saved with the weights must do.
WITHOUT_THE_PACKAGE = """
import json, sys

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "chatbot":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, NoPackage())
try:
    import chatbot
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package could be imported")

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

folder, source, options = sys.argv[1], *map(json.loads, sys.argv[2:4])
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
assert type(config).__name__ == type(model.config).__name__ == "RnnSeq2SeqConfig"
assert not [name for name in sys.modules if name.split(".")[0] == "chatbot"]
replies = [model.generate(torch.tensor(source), **options, num_beams=n) for n in (1, 3)]
model.save_pretrained(sys.argv[4])
print(json.dumps([reply.tolist() for reply in replies]))
"""


def replies_without_the_package(model: Path, again: Path, options: Settings) -> list[list[int]]:
    """What a saved model says to SOURCE, greedily and with three beams, in a process of its own.

    There it is saved `again`.
    """
    arguments = [model, json.dumps(SOURCE.tolist()), json.dumps(options), again]
    finished = subprocess.run(
        [sys.executable, "-I", "-W", "error::UserWarning", "-c", WITHOUT_THE_PACKAGE, *arguments],
        cwd=model.parent,
        env=os.environ | {"HF_MODULES_CACHE": str(model.parent / "modules")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    replies: list[list[int]] = json.loads(finished.stdout.splitlines()[-1])
    return replies
