"""Canonical records: one dialogue a line, in JSON Lines, plain or gzip.

{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}

A record may name its `source`; other keys are ignored, and so are blank lines.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

SUFFIXES = (".jsonl", ".jsonl.gz")
ROLES = ("user", "assistant")


class DataError(ValueError):
    """Wrong data, told as `file:line: what is wrong; what is allowed`."""


class Message(TypedDict):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str


class Dialogue(TypedDict):
    """One record."""

    messages: list[Message]
    source: NotRequired[str]


@dataclass(frozen=True)
class SourceFile:
    """A file of dialogues, the split that its name gives it, and the source of its records."""

    path: Path
    split: Literal["train", "validation", "test"]
    source: str


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
    return [_describe(path) for path in paths]


def read_dialogues(path: Path) -> Iterator[tuple[int, Dialogue]]:
    """Line number and record of each dialogue in a file, read as a stream.

    Raises:
        DataError: at the first line that is wrong, or when the file holds no dialogue.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    number = 0
    empty = True
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    empty = False
                    yield number, _parse(line, f"{path}:{number}")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: not a whole gzip file ({error})") from error
    if empty:
        raise DataError(f"{path}: the file is empty; allowed: one dialogue a line")


def _is_json_lines(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def _allowed() -> str:
    return " and ".join(f"*{suffix}" for suffix in SUFFIXES)


def _describe(path: Path) -> SourceFile:
    stem = path.name.split(".jsonl")[0]
    folder = path.absolute().parent.name
    if stem.startswith("validation"):
        return SourceFile(path, "validation", folder)
    if stem.startswith("test"):
        return SourceFile(path, "test", folder)
    return SourceFile(path, "train", folder if stem.startswith("train") else stem)


def _parse(line: bytes, where: str) -> Dialogue:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON in UTF-8 ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: {_kind(record)}; allowed: an object with messages")
    if "messages" not in record:
        raise DataError(f"{where}: no messages; it has {', '.join(record) or 'no keys'}")
    messages = record["messages"]
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: messages is {_kind(messages)}; allowed: a list of at least one")
    for index, message in enumerate(messages):
        _check_message(message, f"{where}: messages[{index}]")
    if not isinstance(record.get("source", ""), str):
        raise DataError(f"{where}: source is {_kind(record['source'])}; allowed: a string")
    dialogue: Dialogue = {"messages": messages}
    if "source" in record:
        dialogue["source"] = record["source"]
    return dialogue


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise DataError(f"{where} is {_kind(message)}; allowed: an object with role and content")
    if message.get("role") not in ROLES:
        raise DataError(f"{where}.role is {message.get('role')!r}; allowed: {', '.join(ROLES)}")
    if not isinstance(message.get("content"), str):
        raise DataError(f"{where}.content is {_kind(message.get('content'))}; allowed: a string")


def _kind(value: Any) -> str:
    """The name that JSON gives to a value, with an article."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if value == []:
        return "an empty list"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names[type(value)]
