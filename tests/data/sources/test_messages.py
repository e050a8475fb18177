"""Our own records and those of OpenAI's API, from JSON Lines or an array, packed or not."""

import gzip
import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from source_helpers import formats, read, write

from chatbot.data import DataError, read_dialogues
from chatbot.data.sources import find_sources, read_source

TEXT = {"type": "text"}
RECORDS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "system", "content": "You sell bread."},
            {"role": "user", "content": [TEXT | {"text": "Have you"}, TEXT | {"text": "rye?"}]},
            {"role": "assistant", "content": "Yes, fresh."},
            {"role": "user", "content": [{"type": "image_url"}, TEXT | {"text": "This one?"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": "3.20", "tool_call_id": "1"},
            {"role": "assistant", "content": "That is 3.20."},
        ],
        "source": "bakery",
    },
    {"messages": [{"role": "user", "content": "Bye"}, {"role": "assistant", "content": "See you"}]},
]
TURNS = [
    "u: Have you rye? | b: Yes, fresh. | u: This one? | b: That is 3.20.",
    "u: Bye | b: See you",
]
LINES = "".join(f"{json.dumps(record)}\n" for record in RECORDS)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a", "a.txt.gz"])
@pytest.mark.parametrize("array", [False, True])
def test_records_of_openai(tmp_path: Path, name: str, array: bool) -> None:
    path = write(tmp_path / name, json.dumps(RECORDS, indent=1) if array else LINES)
    assert formats(path) == ["messages"]
    skipped: Counter[str] = Counter()
    assert read(path, skipped=skipped) == TURNS
    assert skipped == {
        "system message": 1,
        "tool message": 1,
        "call of a tool": 1,
        "part of type image_url": 1,
    }
    (file,) = find_sources([path])
    assert [record.get("source") for _, record in read_source(file)] == ["bakery", None]


def test_items_of_an_array_know_their_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps(RECORDS, indent=1))
    (file,) = find_sources([path])
    text = path.read_text().splitlines()
    lines = [line for line, _ in read_source(file)]
    assert [text[line - 1] for line in lines] == [" {", " {"]
    assert lines[0] == 2


@pytest.mark.parametrize("size", [10, 65_500, 200_000])
def test_arrays_larger_than_what_is_read_at_once(tmp_path: Path, size: int) -> None:
    records = [
        {"messages": [{"role": "user", "content": f"{n} é" + "x\n" * size}]} for n in range(3)
    ]
    for indent in (None, 2):
        path = write(tmp_path / "a.json", json.dumps(records, indent=indent, ensure_ascii=False))
        assert [record for _, record in read_dialogues(path)] == records


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"messages": 1},\n]', "a.json:2: messages is a number; allowed: a list"),
        ('[\n{"messages": [}]', "a.json:2: not JSON (Expecting value"),
        ('[\n{"messages": []},\n{"messages": [', "a.json:2: messages is an empty list"),
        (
            '[{"messages": [{"role": "user", "content": "hi"}]}\n,{"messages": [',
            "a.json:2: not JSON (Expecting value",
        ),
        (f"{json.dumps(RECORDS)}\n\n[]", "a.json:1: text behind the array; allowed: one array"),
        ('[{"messages": [{"role": "user", "content": [7]}]}]', "content[0] is a number; allowed"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(write(tmp_path / "a.json", content))


def test_a_wrong_item_is_found_without_reading_on(tmp_path: Path) -> None:
    """Behind it the file is broken, which nobody notices."""
    item = '{"messages": [{"role": "user", "content": "hi"}]}'
    rest = "".join(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(20_000))
    packed = gzip.compress(f'[{item},\n{{"messages" []}},{rest}'.encode())
    (tmp_path / "a.json.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"a.json.gz:2: not JSON \(Expecting ':' delimiter"):
        read(tmp_path / "a.json.gz")
