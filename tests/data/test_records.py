"""Reading: every kind of wrong input is named with its file and line."""

import gzip
import json
import re
from pathlib import Path

import pytest

from chatbot.data import DataError, SourceFile, find_files, read_dialogues

GOOD = (
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}'
)


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.jsonl.gz"])
def test_dialogues_are_read_with_their_lines(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    record = {**json.loads(GOOD), "source": "mine", "topic": "greetings"}
    content = f"\ufeff{GOOD}\n\n{json.dumps(record)}\r\n".encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    messages = json.loads(GOOD)["messages"]
    assert list(read_dialogues(path)) == [
        (1, {"messages": messages}),
        (3, {"messages": messages, "source": "mine"}),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[" * 100_000, "not JSON (maximum recursion depth exceeded"),
        ("[1]", "a list; allowed: an object with messages"),
        ("null", "null; allowed: an object with messages"),
        ("{}", "no messages; it has no keys"),
        ('{"text": "hi", "id": 3}', "no messages; it has text, id"),
        ('{"messages": []}', "messages is an empty list; allowed: a list of at least one"),
        ('{"messages": "hi"}', "messages is a string; allowed: a list of at least one"),
        ('{"messages": ["hi"]}', "messages[0] is a string; allowed: an object with role"),
        (
            GOOD.replace('"assistant"', '"narrator"'),
            "messages[1].role is 'narrator'; allowed: user, assistant (left out: system,",
        ),
        (GOOD.replace('"assistant"', "[]"), "messages[1].role is []; allowed: user, assistant"),
        ('{"messages": [{"content": "hi"}]}', "messages[0].role is None; allowed: user, assistant"),
        (GOOD.replace('"hello"', "7"), "messages[1].content is a number; allowed: a string"),
        ('{"messages": [{"role": "user"}]}', "messages[0].content is null; allowed: a string"),
        (GOOD[:-1] + ', "source": 5}', "source is a number; allowed: a string"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(DataError, match=re.escape(f"{path}:2: {message}")):
        list(read_dialogues(path))


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(f"{GOOD}\n".encode() + GOOD.replace("hi", "caff\xe8").encode("latin-1"))
    with pytest.raises(DataError, match=re.escape(f"{path}:2: byte 0xe8 is not UTF-8; allowed")):
        list(read_dialogues(path))


def test_a_broken_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl.gz"
    path.write_text(GOOD)
    with pytest.raises(DataError, match=re.escape(f"{path}:1: not a whole gzip file")):
        list(read_dialogues(path))
    path.write_bytes(gzip.compress(GOOD.encode())[:-9])
    with pytest.raises(DataError, match="not a whole gzip file"):
        list(read_dialogues(path))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(f"{path}: the file is empty")):
        list(read_dialogues(path))


def test_missing_and_wrong_sources_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    with pytest.raises(DataError, match=re.escape(f"{missing}: no such file")):
        list(read_dialogues(missing))
    with pytest.raises(DataError, match=re.escape(f"{missing}: no such file or folder")):
        find_files(missing)
    (tmp_path / "chats.csv").write_text("hi,hello")
    allowed = r"allowed: \*\.jsonl and \*\.jsonl\.gz"
    with pytest.raises(DataError, match=f"no dialogues in this folder; {allowed}"):
        find_files(tmp_path)
    with pytest.raises(DataError, match=f"chats.csv: not a file of dialogues; {allowed}"):
        find_files(tmp_path / "chats.csv")


def test_names_give_splits_and_sources(tmp_path: Path) -> None:
    names = ["a/test-1.jsonl", "a/train.jsonl.gz", "a/validation.jsonl.gz", "films.jsonl"]
    for name in ["a/LICENSE.txt", *reversed(names)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_files(tmp_path) == [
        SourceFile(tmp_path / names[0], "test", "a"),
        SourceFile(tmp_path / names[1], "train", "a"),
        SourceFile(tmp_path / names[2], "validation", "a"),
        SourceFile(tmp_path / names[3], "train", "films"),
    ]
    assert find_files(tmp_path / names[3]) == [SourceFile(tmp_path / names[3], "train", "films")]
