"""A blind reading sheet: two replies to each context in random order, and which a person prefers.

A sheet is a file of JSON lines, one a context. It says whose the replies are: look at the end.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Template

from chatbot.checkpoints import load_chatbot, load_target_tokenizer
from chatbot.data import Message, Split, dialogue_shards, load_prepared
from chatbot.data.dullness import read_shard
from chatbot.decoding import generate_replies
from chatbot.folders import write_atomically
from chatbot.hub_files import hub_config_path
from chatbot.presets import generation_preset

LINE = {"names", "messages", "replies", "whose", "answer"}  # whose: places in names
Sheet = list[dict[str, Any]]


@dataclass(frozen=True)
class Preference:
    """How often the replies of each of two were preferred, and how often neither's."""

    names: list[str]
    wins: list[int]
    level: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the first one's share of the wins (Wilson 1927)."""
        won, n, z = self.wins[0], sum(self.wins), 1.96
        half = z * (won * (n - won) / max(1, n) + z**2 / 4) ** 0.5
        return (won + z**2 / 2 - half) / (n + z**2), (won + z**2 / 2 + half) / (n + z**2)

    def __str__(self) -> str:
        (won, lost), (low, high), (first, second) = self.wins, self.interval, self.names
        share = f"{won / max(1, won + lost):.0%} of {won + lost}, interval {low:.0%} to {high:.0%}"
        return f"{first} preferred to {second}: {share}; level and not counted: {self.level}"


def make_sheet(
    names: list[str],
    data: Path,
    *,
    split: Split = "test",
    count: int = 50,
    seed: int = 0,
) -> Sheet:
    """Let two chatbots answer contexts, each of another dialogue.

    Args:
        names: Each FOLDER@PRESET, of a model and a way of choosing; @PRESET: the shipped model.
        data: Folder that `prepare` wrote.
        count: How many contexts, where there are so many dialogues.

    Raises:
        FileNotFoundError, ValueError: A folder, a preset or `count` is not possible.
    """
    draw = random.Random(seed)
    contexts = _contexts(data, split, count, draw)
    said = [_replies(name, contexts, seed) for name in names]
    sheet: Sheet = []
    for messages, *replies in zip(contexts, *said, strict=True):
        whose = draw.sample([0, 1], 2)
        answer = "=" if replies[0] == replies[1] else None  # nothing to read
        shown = {"replies": [replies[i] for i in whose], "whose": whose, "answer": answer}
        sheet.append({"names": names, "messages": messages, **shown})
    return sheet


def load_sheet(file: Path) -> Sheet:
    """A sheet, or the answers that its page saved. Raises ValueError for anything else."""
    lines = file.read_text("utf-8").rstrip("\n").split("\n")
    try:
        sheet: Sheet = [json.loads(line) for line in lines]
        if all(line.keys() == LINE for line in sheet):
            return sheet
    except (AttributeError, ValueError):
        pass
    raise ValueError(f"{file} is no sheet of `chatbot read`.")


def save_sheet(sheet: Sheet, file: Path) -> None:
    """Write a sheet; what stands there stays until it is whole."""
    lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in sheet)
    write_atomically(file, "".join(lines))


def read_sheet(sheet: Sheet, file: Path, ask: Callable[[str], str] = input) -> None:
    """Ask a person about each line without an answer, and save each answer; `q` stops."""
    for place, line in enumerate(sheet, start=1):
        if line["answer"] is None:
            said = [f"{message['role']}: {message['content']}" for message in line["messages"]]
            print("", f"{place} of {len(sheet)}", *said, sep="\n")
            print("1: {}\n2: {}".format(*line["replies"]))
            while (answer := ask("better: 1, 2 or = (q: stop) ").strip()) not in ("1", "2", "="):
                if answer == "q":
                    return
            line["answer"] = answer
            save_sheet(sheet, file)


def write_page(sheet: Sheet, page: Path) -> None:
    """The sheet for a browser, which saves the answers as a sheet again."""
    template = hub_config_path("evaluation/reading.html").read_text("utf-8")
    page.write_text(Template(template, autoescape=True).render(sheet=sheet), "utf-8")


def preference(sheet: Sheet) -> Preference:
    """Whose replies were preferred, of the lines that have been read."""
    read = [line for line in sheet if line["answer"] in ("1", "2")]
    winners = [line["whose"][int(line["answer"]) - 1] for line in read]
    level = sum(line["answer"] == "=" for line in sheet)
    return Preference(sheet[0]["names"], [winners.count(0), winners.count(1)], level)


def _contexts(data: Path, split: Split, count: int, draw: random.Random) -> list[list[Message]]:
    """What comes before a reply, once of each dialogue."""
    load_prepared(data)  # says what is wrong with the folder
    found = []
    for shard in dialogue_shards(data, split):
        for turns in (record["messages"] for record in read_shard(shard)):
            places = [i for i, turn in enumerate(turns) if i and turn["role"] == "assistant"]
            found += [(turns, places)] if places else []
    if not found or count < 1:
        raise ValueError(f"{data}, {split}: count={count} of {len(found)} dialogues; both min. 1.")
    return [turns[: draw.choice(at)] for turns, at in draw.sample(found, min(count, len(found)))]


def _replies(name: str, contexts: list[list[Message]], seed: int) -> list[str]:
    folder, _, named = name.rpartition("@")
    preset, of = generation_preset(named), folder or None
    written = load_target_tokenizer(of)
    return generate_replies(
        *load_chatbot(of), contexts, preset, seed=seed, target_tokenizer=written
    )
