"""What `chatbot prepare` needs on this machine (Linux): time and memory.

It runs with all default steps, once more as it was, and with one option changed at a time. Memory
is the proportional set size (PSS) of the command and all that it starts, twice a second: pages that
they share count once, and mapped files as far as they are in memory. CPU seconds are those of all
of them, too.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import numpy as np

# What is made up: about these shares of all dialogues, or of all turns.
TWINS, NEAR_TWINS, STOCK, MARKED = 0.05, 0.05, 0.05, 0.02
STOCK_TURNS = ("I don't know.", "Yes.", "Thank you!", "What do you mean?", "ok", "Haha, I see.")
MARKS = ("see https://example.org/{}", "write to a{}@example.org", "<b>{}</b> &amp; more", "[name]")
LEXICON, BLOCK, REMEMBERED = 200_000, 2_000, 10_000  # words; dialogues made at once; for twins
RUNS = {
    "all steps": [],
    "the same again": [],
    "other examples": ["--max-source-tokens", "64"],
    "another tokenizer": ["--keep-case"],
    "other cleaning": ["--no-urls"],
}


def lexicon(draw: np.random.Generator) -> np.ndarray:
    """Made-up words, the commonest first and short."""
    syllables = [c + v for c in "bdfghjklmnprstvwz" for v in ("ai", "ou", *"aeiou")]
    lengths = 1 + draw.binomial(3, np.linspace(0.1, 0.9, LEXICON))
    drawn = np.array(syllables)[draw.integers(len(syllables), size=(LEXICON, 4))]
    words = ["".join(row[:n]) for row, n in zip(drawn, lengths, strict=True)]
    return np.array(words, dtype=object)


def made_up(size: int, seed: int = 0) -> Iterator[str]:
    """Records as lines, of at least `size` bytes: words by Zipf's law, some dialogues twice."""
    draw = np.random.default_rng(seed)
    words, earlier = lexicon(draw), list[list[str]]()
    while size > 0:
        counts = 2 * draw.geometric(0.35, BLOCK)
        lengths = draw.poisson(draw.exponential(9, counts.sum())) + 1
        ranks = (LEXICON ** draw.random(lengths.sum())).astype(int) - 1
        turns = np.split(words[ranks], lengths.cumsum()[:-1])
        said = [*map(dress, turns, draw.random(len(turns)))]
        for end, count, chance in zip(counts.cumsum(), counts, draw.random(BLOCK), strict=True):
            dialogue = said[end - count : end]
            if earlier and chance < TWINS + NEAR_TWINS:
                dialogue = list(earlier[draw.integers(len(earlier))])
                if chance > TWINS:
                    dialogue[-1] += " " + words[draw.integers(LEXICON)]
            elif len(earlier) < REMEMBERED:
                earlier.append(dialogue)
            elif chance > 0.9:  # twins lie far apart, too
                earlier[draw.integers(REMEMBERED)] = dialogue
            roles = cycle(("user", "assistant"))
            messages = [{"role": next(roles), "content": text} for text in dialogue]
            line = json.dumps({"messages": messages}) + "\n"
            size -= len(line)
            yield line


def dress(turn: np.ndarray, chance: float) -> str:
    """A sentence of words; now and then what everybody says, or what cleaning changes."""
    text, number = " ".join(turn), int(chance * 1e6)
    if chance < STOCK:
        return STOCK_TURNS[number % len(STOCK_TURNS)]
    if chance < STOCK + MARKED:
        return f"{text} {MARKS[number % len(MARKS)].format(number)}"
    return f"{text.capitalize()}{'?' if chance > 0.75 else '.'}"


def memory_of(process: int) -> list[int]:
    """PSS in bytes of a process and of all that it has started."""
    parents, found, family = dict[int, int](), [0], [process]
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
        with suppress(OSError):
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            found += [1024 * int(line.split()[1]) for line in rollup if line.startswith("Pss:")]
    return found


def run(command: list[str]) -> tuple[float, float, float, float]:
    """Seconds and CPU seconds of a command, and its peaks of megabytes: all, largest process."""
    used, start, total, largest = sum(os.times()[2:4]), time.perf_counter(), 0, 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        sizes = memory_of(process.pid)
        total, largest = max(total, sum(sizes)), max(largest, *sizes)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    busy = sum(os.times()[2:4]) - used
    return time.perf_counter() - start, busy, total / 1e6, largest / 1e6


def data(source: Path | None, gigabytes: float) -> None:
    """`benchmark.py data`."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "out")
        if source is None:
            source = Path(scratch, "made_up.jsonl")
            with source.open("w") as file:
                file.writelines(made_up(int(gigabytes * 1e9)))
        command = [sys.executable, "-m", "chatbot", "prepare", str(source), "--output", str(output)]
        for name, change in RUNS.items():
            measured = run([*command, *change, "--overwrite"])
            if name == "all steps":
                print(summary(output, *measured[:2]))
                print(f"{'':20}{'seconds':>9}{'CPU':>9}{'peak MB':>9}{'largest':>9}")
            print(f"{name:20}" + "{:9.1f}{:9.1f}{:9.0f}{:9.0f}".format(*measured), flush=True)


def summary(output: Path, seconds: float, busy: float) -> str:
    """How much was prepared, and how fast."""
    report = json.loads((output / "preparation.json").read_text("utf-8"))
    megabytes = sum(Path(path).stat().st_size for path in report["files"]) / 1e6
    dropped = [reasons for split in report["dropped"].values() for reasons in split.values()]
    dialogues = sum(sum(n.values()) for n in [*report["dialogues"].values(), *dropped])
    speed = f"{megabytes / seconds:.2f} MB a second, {megabytes / busy:.2f} MB a CPU-second"
    return f"{megabytes:,.0f} MB, {dialogues:,} dialogues: {speed}"
