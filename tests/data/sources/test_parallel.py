"""Parallel text in two files."""

import re
from pathlib import Path

import pytest
from source_helpers import formats, read, write

from chatbot.data import DataError
from chatbot.data.sources import SourceOptions, find_sources
from chatbot.data.sources.parallel import read_pairs


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lines_belong_together(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"train.it{suffix}", "Stai attento\n\nCosa vorresti?\n")
    target = write(tmp_path / f"a+b.en{suffix}", "Be careful\nEmpty.\nWhat would you like?\n")
    spec = f"{source}+{target}"
    assert formats(spec) == ["parallel"]
    (file,) = find_sources([spec])
    assert list(read_pairs(file, SourceOptions())) == [
        (1, {"source": "Stai attento", "target": "Be careful"}),
        (2, {"source": "", "target": "Empty."}),
        (3, {"source": "Cosa vorresti?", "target": "What would you like?"}),
    ]
    assert read(spec)[0] == "u: Stai attento | b: Be careful"
    assert file.files == (source, target)


def test_files_of_unlike_lengths_are_refused(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.it", "uno\ndue\n"), write(tmp_path / "a.en", "one\n")
    with pytest.raises(DataError, match=re.escape("a.en:2: the file ends before this line")):
        read(f"{source}+{target}")
    with pytest.raises(DataError, match=re.escape("a.en:2: the file ends before this line")):
        read(f"{target}+{source}")


def test_one_file_is_not_enough(tmp_path: Path) -> None:
    source = write(tmp_path / "a+b.txt", "uno\n")
    assert formats(source) == ["lines"]
    with pytest.raises(DataError, match=r"one file of parallel text; allowed: two, as in a.en\+a"):
        read(source, format="parallel")
    with pytest.raises(DataError, match=r"a.it\+b.en: no such file or folder"):
        read(tmp_path / "a.it+b.en")
    english = write(tmp_path / "books.en", "one\n")
    with pytest.raises(
        DataError, match=r"/book.en: no such file or folder; did you mean .*/books.en"
    ):
        read(f"{english}+{tmp_path / 'book.en'}")
