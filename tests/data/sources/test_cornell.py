"""The files of the Cornell Movie-Dialogs Corpus, with sentences of our own."""

import re
from pathlib import Path

import pytest
from source_helpers import formats, read, write

from chatbot.data import DataError
from chatbot.data.sources import find_sources

LINES = """L195 +++$+++ u2 +++$+++ m0 +++$+++ CAMERON +++$+++ The sea, I'd say.
L194 +++$+++ u0 +++$+++ m0 +++$+++ BIANCA +++$+++ Which do you prefer, café or sea?
L197 +++$+++ u2 +++$+++ m0 +++$+++ CAMERON +++$+++ Ready?
L198 +++$+++ u0 +++$+++ m0 +++$+++ BIANCA +++$+++ Almost +++ wait.
L199 +++$+++ u2 +++$+++ m0 +++$+++ CAMERON +++$+++
"""
CONVERSATIONS = """u0 +++$+++ u2 +++$+++ m0 +++$+++ ['L194', 'L195']
u2 +++$+++ u0 +++$+++ m0 +++$+++ ['L197', 'L198', 'L199']
"""
FIRST = "u: Which do you prefer, café or sea? | b: The sea, I'd say."


def test_packed_files(tmp_path: Path) -> None:
    write(tmp_path / "movie_lines.txt.gz", LINES.encode("iso-8859-1"))
    write(tmp_path / "movie_conversations.txt.gz", CONVERSATIONS)
    assert read(tmp_path)[0] == read(tmp_path / "movie_lines.txt.gz")[0] == FIRST


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "cornell/movie_lines.txt", LINES.encode("iso-8859-1"))
    write(tmp_path / "cornell/movie_conversations.txt", CONVERSATIONS)
    write(tmp_path / "cornell/README.txt", "about")
    return tmp_path / "cornell"


@pytest.mark.parametrize("name", ["", "movie_lines.txt", "movie_conversations.txt"])
def test_either_file_or_the_folder(folder: Path, name: str) -> None:
    assert formats(folder / name) == ["cornell"]
    assert read(folder / name) == [FIRST, "u: Ready? | b: Almost +++ wait. | u: "]
    (file,) = find_sources([folder / name])
    assert file.source == "cornell"
    assert file.files == (folder / "movie_conversations.txt", folder / "movie_lines.txt")


def test_one_character_is_the_bot(folder: Path) -> None:
    assert read(folder, bot="Cameron") == [FIRST, "b: Ready? | u: Almost +++ wait. | b: "]


def test_the_other_file_is_needed(folder: Path) -> None:
    (folder / "movie_conversations.txt").unlink()
    with pytest.raises(DataError, match=r"movie_conversations.txt is missing; allowed: both fil"):
        read(folder / "movie_lines.txt")


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("lines", "L1 +++$+++ u0 hi", "movie_lines.txt:6: 2 fields; allowed: 5: id, character"),
        ("conversations", "u0 +++$+++ u2 +++$+++ m0 +++$+++ ['L9']", ":3: no line L9 in movie_lin"),
        ("conversations", "u0 +++$+++ u2 +++$+++ m0 +++$+++ []", ":3: no lines; allowed: a list"),
    ],
)
def test_wrong_lines_are_named(folder: Path, name: str, line: str, message: str) -> None:
    with (folder / f"movie_{name}.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=re.escape(message)):
        read(folder)
