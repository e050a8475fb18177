"""ShareGPT, as one array or a record a line."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from source_helpers import formats, read, write

from chatbot.data import DataError

RECORDS = [
    {
        "id": "a_0",
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": "Name a tree."},
            {"from": "gpt", "value": "The larch."},
        ],
    },
    {
        "id": "b_0",
        "conversations": [
            {"from": "user", "value": "Why?"},
            {"from": "chatgpt", "value": "I like it."},
        ],
    },
]


@pytest.mark.parametrize("array", [True, False])
def test_conversations(tmp_path: Path, array: bool) -> None:
    content = json.dumps(RECORDS) if array else "\n".join(json.dumps(each) for each in RECORDS)
    path = write(tmp_path / ("a.json" if array else "a.jsonl.gz"), content)
    skipped: Counter[str] = Counter()
    assert formats(path) == ["sharegpt"]
    assert read(path, skipped=skipped) == [
        "u: Name a tree. | b: The larch.",
        "u: Why? | b: I like it.",
    ]
    assert skipped == {"system message": 1}


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"from": "owl", "value": "hu"}, "conversations[0].from is 'owl'; allowed: human, user,"),
        ({"from": "gpt"}, "conversations[0] is not an object with from and value, both strings"),
        ("hi", "conversations[0] is not an object with from and value"),
    ],
)
def test_wrong_turns_are_named(tmp_path: Path, turn: object, message: str) -> None:
    lines = [json.dumps(RECORDS[1]), json.dumps({"conversations": [turn]})]
    with pytest.raises(DataError, match=re.escape(f"a.jsonl:2: {message}")):
        read(write(tmp_path / "a.jsonl", "\n".join(lines)))


def test_a_record_of_another_kind_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", f'{json.dumps(RECORDS[0])}\n{{"text": "hi"}}\n')
    with pytest.raises(DataError, match=r"a.jsonl:2: conversations is null; allowed: a list"):
        read(path)
