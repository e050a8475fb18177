"""What a source may be, and files as they come: encodings, ends of lines, size, nothing in them."""

import gzip
import re
from itertools import islice
from pathlib import Path
from typing import IO

import pytest
from source_helpers import formats, read, write

from chatbot.data import DataError, reading
from chatbot.data.sources import IMPORTERS, SourceOptions, find_sources, read_source

CHAT = "Wie heißt du?\nÉtienne – und du? 😀\n"
TURNS = ["u: Wie heißt du? | b: Étienne – und du? 😀"]
JSON = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}'


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The files that have been opened so far."""
    streams: list[IO[bytes]] = []
    open_bytes = reading.open_bytes

    def watched(path: Path) -> IO[bytes]:
        streams.append(open_bytes(path))
        return streams[-1]

    monkeypatch.setattr(reading, "open_bytes", watched)
    return streams


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["chat.txt", "chat.txt.gz"])
def test_encodings_that_a_file_tells_itself(tmp_path: Path, name: str, encoding: str) -> None:
    assert read(write(tmp_path / name, CHAT.encode(encoding))) == TURNS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat", f"[{JSON}]"),
        ("chat", f"{JSON}\r\n\r\n{JSON}\r\n"),
        ("chat.csv", "context,reply\r\nhi,ho\r\n"),
        ("chat.txt", "1/1/24, 01:00 - Ann: hi\r\n1/1/24, 01:00 - Ben: ho"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_hides_no_format(
    tmp_path: Path, name: str, content: str, encoding: str
) -> None:
    assert set(read(write(tmp_path / name, content.encode(encoding)))) == {"u: hi | b: ho"}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be"])
def test_encodings_that_must_be_named(tmp_path: Path, encoding: str) -> None:
    chat = CHAT.replace(" 😀", "")
    path = write(tmp_path / "chat.txt", chat.encode(encoding))
    assert read(path, encoding=encoding) == [TURNS[0].replace(" 😀", "")]
    told = {
        "cp1252": "chat.txt:1: byte 0xdf is not UTF-8; allowed: UTF-8, or what --encoding names",
    }.get(encoding, "chat.txt:1: not text (it holds zero bytes); allowed: text, if it is UTF-16")
    with pytest.raises(DataError, match=re.escape(told)):
        read(path)


def test_the_line_of_a_wrong_byte_is_told(tmp_path: Path) -> None:
    content = b"hi\nho\n" * 50_000 + b"caf\xe8\nho\n"
    with pytest.raises(DataError, match=r"chat.txt:100001: byte 0xe8 is not UTF-8"):
        read(write(tmp_path / "chat.txt", content))
    with pytest.raises(DataError, match=r"chat.txt:2: byte 0x81 is not CP1252"):
        read(write(tmp_path / "chat.txt", b"hi\n\x81\n"), encoding="cp1252")
    with pytest.raises(DataError, match=r"chat.json:1: byte 0xe8 is not UTF-8"):
        read(write(tmp_path / "chat.json", f"[{JSON}]".replace("hi", "\xe8").encode("latin-1")))
    with pytest.raises(DataError, match=r"chat.txt:2: not UTF-16-LE \("):
        read(write(tmp_path / "chat.txt", CHAT.encode("utf-16")[:-1]))


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(DataError, match="encoding='latin-99': no such encoding; allowed: utf-8, "):
        SourceOptions(encoding="latin-99")


# Size


def test_a_file_of_emoji_is_a_chat(tmp_path: Path) -> None:
    assert read(write(tmp_path / "chat.txt", "😀\n👩🏽‍🌾👍\n\n🇮🇹\n❤️\n")) == [
        "u: 😀 | b: 👩🏽‍🌾👍",
        "u: 🇮🇹 | b: ❤️",
    ]


@pytest.mark.parametrize("name", ["chat.txt", "chat.csv", "chat.jsonl", "chat.json"])
def test_a_line_of_a_megabyte(tmp_path: Path, name: str) -> None:
    long = "word " * 210_000
    content = {
        "chat.txt": f"hi\n{long}\n",
        "chat.csv": f"context,reply\nhi,{long}\n",
        "chat.jsonl": JSON.replace("ho", long),
        "chat.json": f"[{JSON.replace('ho', long)}]",
    }[name]
    assert read(write(tmp_path / name, content)) == [f"u: hi | b: {long}"]


@pytest.mark.parametrize(
    ("name", "head", "record"),
    [
        ("chat.txt", "", "hi\nho\n\n"),
        ("chat.csv", "context,reply\n", "hi,ho\n"),
        ("chat.jsonl", "", f"{JSON}\n"),
        ("chat.json", "[", f"{JSON},\n"),
        ("chat.tsv", "speaker\ttext\n", "Ann\thi\nBen\tho\n\n"),
        ("whatsapp.txt", "", "1/1/24, 01:00 - Ann: hi\n1/1/24, 01:00 - Ben: ho\n"),
    ],
)
def test_a_file_is_read_only_as_far_as_it_is_asked_for(
    tmp_path: Path, opened: list[IO[bytes]], name: str, head: str, record: str
) -> None:
    """Of a million lines the first few thousand, though the file is one of megabytes."""
    path = write(tmp_path / name, head + record * (1_000_000 // record.count("\n")))
    (file,) = find_sources([path])
    dialogues = read_source(file)
    asked = 100 if "whatsapp" in name else 3_000
    assert len(list(islice(dialogues, asked))) == asked
    *heads, stream = opened
    assert stream.tell() < path.stat().st_size / 20
    assert all(head.closed for head in heads)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.json.gz", "a"])
@pytest.mark.parametrize("content", ["", "\n \n\t", "\ufeff"])
def test_a_file_with_nothing_in_it_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match=f"{name}: the file is empty; allowed: at least one dialog"):
        read(write(tmp_path / name, content))


def test_a_packed_file_needs_no_name(tmp_path: Path) -> None:
    path = write(tmp_path / "chat.txt.gz", CHAT)
    assert read(path.rename(tmp_path / "chat.txt")) == TURNS


# What a source may be


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.html", "<html>", "a.html:1: not a file of dialogues; allowed: JSON, CSV, Parquet"),
        ("a.zip", b"PK\x03\x04...", "a.zip: a ZIP archive; allowed: what is in it, unpacked"),
        ("a.bin", b"\x89PNG\0", "a.bin:1: not a file of dialogues"),
        ("a.txt", b"\x89PNG\0", "a.txt:1: not text (it holds zero bytes)"),
        ("a.json", "hello", "a.json:1: not JSON (Expecting value"),
        ("a.jsonl", '{"a": 1}', "a.jsonl:1: not a file of dialogues, with columns a; allowed: con"),
        ("a.jsonl", "[1]", "a.jsonl:1: a number; allowed: an object"),
        ("a.gz", b"hi", "a.gz:1: not a whole gzip file"),
    ],
)
def test_what_is_not_recognised_is_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.escape(message)):
        read(path)


def test_a_format_is_told_and_must_be_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.html", "hi\nho\n")
    assert read(path, format="lines") == ["u: hi | b: ho"]
    with pytest.raises(DataError, match=f"format='chat': allowed are {', '.join(IMPORTERS)}"):
        read(path, format="chat")


def test_a_missing_source_has_a_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "chats.jsonl", JSON)
    with pytest.raises(DataError, match=r"chat.jsonl: no such file or folder; did you mean .*/cha"):
        read(tmp_path / "chat.jsonl")
    with pytest.raises(DataError, match=r"zebra: no such file or folder$"):
        read(tmp_path / "zebra")


def test_a_folder_holds_data_or_texts(tmp_path: Path) -> None:
    write(tmp_path / "a/LICENSE.txt", "free\nto use\n")
    write(tmp_path / "a/meta.json", "{}")
    write(tmp_path / "a/deep/test.csv.gz", "context,reply\nhi,ho\n")
    write(tmp_path / "a/validation.jsonl", JSON)
    write(tmp_path / "b/one.txt", "hi\nho\n")
    write(tmp_path / "b/two.json", f"[{JSON}]")
    write(tmp_path / "c/readme.md", "hi")
    found = find_sources([tmp_path / "a", tmp_path / "b"])
    assert [(file.path.name, file.split, file.source, file.format) for file in found] == [
        ("test.csv.gz", "test", "deep", "table"),
        ("validation.jsonl", "validation", "a", "messages"),
        ("one.txt", "train", "one", "lines"),
        ("two.json", "train", "two", "messages"),
    ]
    with pytest.raises(DataError, match=r"c: no dialogues in this folder; allowed: \*.jsonl, \*.c"):
        read(tmp_path / "c")


def test_each_file_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", JSON)
    assert formats(path, tmp_path, str(path)) == ["messages"]


@pytest.mark.parametrize(
    ("name", "spec", "weight"),
    [
        ("sgd.jsonl", "sgd.jsonl", None),
        ("sgd.jsonl", "sgd.jsonl:0.2", 0.2),
        ("sgd.jsonl", "sgd.jsonl:3", 3.0),
        ("sgd:2", "sgd:2", None),
        ("sgd:2", "sgd:2:.5", 0.5),
    ],
)
def test_weights(tmp_path: Path, name: str, spec: str, weight: float | None) -> None:
    path = write(tmp_path / name, JSON)
    (file,) = find_sources([f"{tmp_path}/{spec}"])
    assert (file.path, file.weight) == (path, weight)


def test_a_weight_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.jsonl:0.0: a weight of 0; allowed: above 0, or leave"):
        find_sources([f"{write(tmp_path / 'a.jsonl', JSON)}:0.0"])


def test_a_gzip_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    packed = gzip.compress(b"hi\nho\n" * 100_000)
    (tmp_path / "a.txt.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"a.txt.gz:\d+: not a whole gzip file"):
        read(tmp_path / "a.txt.gz")
