"""Breaks the model on purpose, one line at a time, and sees that a test turns red.

    python scripts/mutate.py                 every mutant, a few minutes
    python scripts/mutate.py "swap" "crop"   those whose name holds one of these words

Each mutant is applied to a copy of the repository. Prints what killed it; the exit status is the
number of survivors.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
COPIED = ("chatbot", "hub_config", "tests", "pyproject.toml")
TESTS = ("tests/modeling", "tests/test_reference.py")


class Mutant(NamedTuple):
    """One fault: `old`, which occurs once in a file of chatbot/modeling/, becomes `new`."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = [
    Mutant(
        "attention sees padding", "attention",
        "else memory.mask[:, None], None",
        "else torch.ones_like(memory.mask)[:, None], None",
    ),
    Mutant(
        "a label sees what another reply may see", "modeling",
        "seen[reply[index]]",
        "seen[reply[index.roll(1)]]",
    ),
    Mutant(
        "positions count padding", "attention",
        "return self.mask.long().cumsum(1) - 1",
        "return torch.arange(self.mask.shape[1]).expand_as(self.mask)",
    ),
    Mutant(
        "recent counts from the padded end", "attention",
        "memory.positions >= memory.lengths - self.size",
        "memory.positions >= memory.mask.shape[1] - self.size",
    ),
    Mutant(
        "local-m runs past the source", "attention",
        "centre = torch.minimum(steps[None], memory.lengths - 1)",
        "centre = steps[None] + 0 * memory.lengths",
    ),
    Mutant(
        "local-p with the padded length", "attention",
        "centre = memory.lengths[:, :, None] * share",
        "centre = memory.mask.shape[1] * share",
    ),
    Mutant(
        "a Gaussian twice as wide", "attention",
        "(2 * (self.size / 2) ** 2)",
        "(2 * self.size**2)",
    ),
    Mutant(
        "copying keeps the last place of a word", "copying",
        "scatter_add(2, words, attention)",
        "scatter(2, words, attention)",
    ),
    Mutant(
        "the copy gate is swapped", "copying",
        "own + vocabulary, other + copied",
        "other + vocabulary, own + copied",
    ),
    Mutant(
        "the copying loss forgets num_items_in_batch", "copying",
        "(len(logits) if num_items_in_batch is None else num_items_in_batch)",
        "len(logits)",
    ),
    Mutant(
        "a reply starts from the state before its own", "dialogues",
        "arrival = row[item * length + reply_positions[item, reply]]",
        "arrival = row[item * length + reply_positions[item, reply]].clamp(min=1) - 1",
    ),
    Mutant(
        "the loss of dialogues forgets num_items_in_batch", "modeling",
        "items = lengths.sum() if num_items_in_batch is None else num_items_in_batch",
        "items = lengths.sum()",
    ),
    Mutant(
        "reordering forgets the keys", "cache",
        "self.attention_keys = self.attention_keys.index_select(0, indices)",
        "pass",
    ),
    Mutant(
        "repeating forgets the keys", "cache",
        "self.attention_keys = self.attention_keys.repeat_interleave(repeats, dim=0)",
        "pass",
    ),
    Mutant(
        "the cache swaps hidden and cell", "cache",
        "(layer.keys[:, :, -1], layer.values[:, :, -1])",
        "(layer.values[:, :, -1], layer.keys[:, :, -1])",
    ),
    Mutant(
        "crop keeps the newest state", "cache",
        "self.keys, self.values = self.keys[:, :, end - 1 : end], self.values[:, :, end - 1 : end]",
        "self.keys, self.values = self.keys[:, :, -1:], self.values[:, :, -1:]",
    ),
    Mutant(
        "crop keeps the length", "cache",
        "self.length = self.length + tokens_to_remove",
        "pass",
    ),
    Mutant(
        "recording keeps the new states only", "cache",
        "key_states = torch.cat([self.keys, key_states], dim=2)",
        "key_states = key_states",
    ),
    Mutant(
        "a continuation reads everything again", "generation",
        "input_ids[:, read:].contiguous()",
        "input_ids.contiguous()",
    ),
    Mutant(
        "an assistant is not recorded", "generation",
        'model_kwargs["past_key_values"].activate_past_recording()',
        "pass",
    ),
    Mutant(
        "padding's state is used", "recurrent",
        "last = torch.cat([_last_real(outputs, padding, self.rnn.hidden_size), last[1:]])",
        "pass",
    ),
    Mutant(
        "padding opens the input gate", "recurrent",
        "(-_SHUT, _SHUT, 0.0, 0.0)",
        "(_SHUT, _SHUT, 0.0, 0.0)",
    ),
    Mutant(
        "dropped weights are drawn at inference too", "recurrent",
        "F.dropout(hidden, drop, training)",
        "F.dropout(hidden, drop, True)",
    ),
    Mutant(
        "residual adds the layer's own output", "recurrent",
        "result = result + inputs",
        "result = result + result",
    ),
    Mutant(
        "labels are shifted twice", "modeling",
        "logits, labels=None, vocab_size=size, shift_labels=labels.contiguous(), **kwargs",
        "logits, labels=labels, vocab_size=size, shift_labels=None, **kwargs",
    ),
    Mutant(
        "the target starts without <go>", "modeling",
        "shifted[:, 0] = decoder_start_token_id",
        "pass",
    ),
    Mutant(
        "the bridge is dropped", "modeling",
        "states = self.bridge(encoded.final_hidden, encoded.final_cell)",
        "states = self.bridge(encoded.final_hidden * 0, encoded.final_cell * 0)",
    ),
    Mutant(
        "the bridge swaps hidden and cell", "modeling",
        "(hidden[:, [layer]], cell[:, [layer]])",
        "(cell[:, [layer]], hidden[:, [layer]])",
    ),
    Mutant(
        "the position is lost between calls", "modeling",
        "return cache.last_states(), cache.get_seq_length()",
        "return cache.last_states(), 0",
    ),
    Mutant(
        "the state is fed instead of the attentional vector", "modeling",
        "reading.states[0].append((reading.outputs, reading.outputs[..., :0]))",
        "reading.states[0].append((layers[-1], layers[-1][..., :0]))",
    ),
    Mutant(
        "additive attention asks the lowest layer", "modeling",
        "self._look(states[-1][0], memory, position)",
        "self._look(states[0][0], memory, position)",
    ),
    Mutant(
        "context and state change places", "modeling",
        "torch.cat([context, hidden], dim=-1)",
        "torch.cat([hidden, context], dim=-1)",
    ),
    Mutant(
        "the output is tied to the source's embeddings", "modeling",
        'owner = "encoder" if self.config.share_embeddings else "decoder"',
        'owner = "encoder"',
    ),
    Mutant(
        "projected keys are not kept", "modeling",
        "cache.attention_keys = memory.keys",
        "pass",
    ),
    Mutant(
        "dropout at inference", "modeling",
        "F.dropout(reading.outputs, self.config.dropout, self.training)",
        "F.dropout(reading.outputs, self.config.dropout, True)",
    ),
]  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Run the mutants that `words` name, or all. Returns the number of survivors."""
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_repository(copy)
        if killer(copy):
            raise SystemExit("The tests fail before anything is broken.")
        for mutant in chosen:
            killed_by = try_out(mutant, copy)
            survivors += killed_by is None
            print(f"{mutant.name:<52} {killed_by or 'SURVIVED'}", flush=True)
    print(f"{len(chosen)} mutants, survivors: {survivors}")
    return survivors


def copy_repository(folder: Path) -> None:
    """What the tests of the model need."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
            )
        else:
            shutil.copy(source, folder)


def mutated(mutant: Mutant, repository: Path) -> tuple[Path, str]:
    """The file that a mutant changes, and its text then. Raises ValueError if it fits no more."""
    path = repository / "chatbot" / "modeling" / f"{mutant.file}_rnn_seq2seq.py"
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.old!r} occurs {text.count(mutant.old)} times")
    return path, text.replace(mutant.old, mutant.new)


def try_out(mutant: Mutant, repository: Path) -> str | None:
    """The first test that fails under a mutant, which is undone afterwards."""
    path, text = mutated(mutant, repository)
    before = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    try:
        return killer(repository)
    finally:
        path.write_text(before, encoding="utf-8")


def killer(repository: Path) -> str | None:
    """The first test that fails; None where all pass."""
    options = ["-x", "-q", "-n", "2", "--no-header", "-p", "no:cacheprovider", "--tb=no"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-m", "not slow", *TESTS],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    if finished.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", finished.stdout, re.MULTILINE)
    if not failed:
        raise SystemExit(finished.stdout + finished.stderr)
    return failed[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="run the mutants whose name holds one of these")
    sys.exit(main(parser.parse_args().words))
