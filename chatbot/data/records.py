"""Canonical records: one dialogue a line, in JSON Lines, plain or gzip.

{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}

A record may name its `source`; other keys are ignored, and so are blank lines. What OpenAI's API
adds is understood: messages of other roles are left out, and so are parts that are not text.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from chatbot.data.reading import DataError, json_values

SUFFIXES = (".jsonl", ".jsonl.gz")
ROLES = ("user", "assistant")
UNSPOKEN_ROLES = ("system", "developer", "tool", "function")

Skipped = Counter[str]
"""How many messages were left out while reading, by what they were."""


class Message(TypedDict):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str


class Dialogue(TypedDict):
    """One record."""

    messages: list[Message]
    source: NotRequired[str]
    bot: NotRequired[str]
    """Whom the assistant was chosen to be, where speakers have names."""


class Pair(TypedDict):
    """One record of parallel text."""

    source: str
    target: str


@dataclass(frozen=True)
class SourceFile:
    """What is read as one: a file, the split that its name gives it, the source of its records."""

    path: Path
    """Or the `hub:...` of a dataset."""
    split: Literal["train", "validation", "test"]
    source: str
    format: str = "messages"
    """A key of `chatbot.data.sources.IMPORTERS`."""
    beside: Path | None = None
    """The second file where two belong together."""
    weight: float | None = None
    """How often it counts, where that was said (`mine.jsonl:0.2`)."""

    @property
    def is_hub(self) -> bool:
        """Whether it is read from the Hub, and no file."""
        return str(self.path).startswith("hub:")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files on disk that are read."""
        return () if self.is_hub else (self.path, *([self.beside] if self.beside else []))


def find_files(source: Path) -> list[SourceFile]:
    """The file `source`, or all `*.jsonl` and `*.jsonl.gz` in and below that folder, sorted.

    A file named `validation*` or `test*` belongs to that split, any other to train. Records that
    name no source get the file's stem, or its folder's name where the stem is that of a split.
    """
    if source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.is_file() and _is_json_lines(p))
        if not paths:
            raise DataError(f"{source}: no dialogues in this folder; allowed: {_allowed()}")
    elif not source.exists():
        raise DataError(f"{source}: no such file or folder")
    elif not _is_json_lines(source):
        raise DataError(f"{source}: not a file of dialogues; allowed: {_allowed()}")
    else:
        paths = [source]
    return [describe_file(path) for path in paths]


def describe_file(path: Path) -> SourceFile:
    """A file with the split and the source that its name gives it."""
    name = path.name.removesuffix(".gz")
    stem = name.removesuffix(Path(name).suffix)
    folder = path.absolute().parent.name
    if stem.startswith("validation"):
        return SourceFile(path, "validation", folder)
    if stem.startswith("test"):
        return SourceFile(path, "test", folder)
    return SourceFile(path, "train", folder if stem.startswith("train") else stem)


def read_dialogues(path: Path) -> Iterator[tuple[int, Dialogue]]:
    """Line number and record of each dialogue in a file, read as a stream.

    Raises:
        DataError: at the first line that is wrong, or when the file holds no dialogue.
    """
    empty = True
    for number, record in json_values(path):
        empty = False
        yield number, parse_dialogue(record, f"{path}:{number}", Counter())
    if empty:
        raise DataError(f"{path}: the file is empty; allowed: one dialogue a line")


def parse_dialogue(record: Any, where: str, skipped: Skipped) -> Dialogue:
    """A checked record, without what is not said in it, which is counted.

    Raises:
        DataError: naming `where` and what is allowed.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: {kind(record)}; allowed: an object with messages")
    if "messages" not in record:
        raise DataError(f"{where}: no messages; it has {', '.join(record) or 'no keys'}")
    messages = record["messages"]
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: messages is {kind(messages)}; allowed: a list of at least one")
    source = record.get("source")
    if source is not None and not isinstance(source, str):
        raise DataError(f"{where}: source is {kind(source)}; allowed: a string")
    parsed = [
        _parse_message(message, f"{where}: messages[{index}]", skipped)
        for index, message in enumerate(messages)
    ]
    dialogue: Dialogue = {"messages": [message for message in parsed if message is not None]}
    return dialogue if source is None else {**dialogue, "source": source}


def kind(value: Any) -> str:
    """The name that JSON gives to a value, with an article."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if value == []:
        return "an empty list"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _parse_message(message: Any, where: str, skipped: Skipped) -> Message | None:
    if not isinstance(message, dict):
        raise DataError(f"{where} is {kind(message)}; allowed: an object with role and content")
    role, content = message.get("role"), message.get("content")
    if role in UNSPOKEN_ROLES:
        skipped[f"{role} message"] += 1
        return None
    if role not in ROLES:
        allowed = f"{', '.join(ROLES)} (left out: {', '.join(UNSPOKEN_ROLES)})"
        raise DataError(f"{where}.role is {role!r}; allowed: {allowed}")
    if content is None and message.get("tool_calls"):
        skipped["call of a tool"] += 1
        return None
    if isinstance(content, list):
        content = _join_parts(content, f"{where}.content", skipped)
    if not isinstance(content, str):
        raise DataError(f"{where}.content is {kind(content)}; allowed: a string")
    return {"role": role, "content": content}


def _join_parts(parts: list[Any], where: str, skipped: Skipped) -> str:
    texts = []
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("text", ""), str):
            raise DataError(f"{where}[{index}] is {kind(part)}; allowed: an object with type, text")
        if part.get("type") == "text" and "text" in part:
            texts.append(part["text"])
        else:
            skipped[f"part of type {part.get('type')}"] += 1
    return " ".join(texts)


def _is_json_lines(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def _allowed() -> str:
    return " and ".join(f"*{suffix}" for suffix in SUFFIXES)
