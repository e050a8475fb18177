"""Parallel text: two files whose lines belong together, given as `a.en+a.it`."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from chatbot.data.reading import text_lines
from chatbot.data.records import DataError, Dialogue, Pair, Skipped, SourceFile
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.speakers import alternate


def pair(spec: str) -> tuple[Path, Path] | None:
    """The two files of a source, if it names two."""
    parts = spec.split("+")
    sides = ((Path("+".join(parts[:n])), Path("+".join(parts[n:]))) for n in range(1, len(parts)))
    return next((both for both in sides if all(path.is_file() for path in both)), None)


def read_pairs(file: SourceFile, options: SourceOptions) -> Iterator[tuple[int, Pair]]:
    """Line and pair."""
    assert file.beside is not None
    sources = text_lines(file.path, options.encoding)
    for source, target in zip_longest(sources, text_lines(file.beside, options.encoding)):
        if source is None or target is None:
            short, line = (file.path, target) if source is None else (file.beside, source)
            raise DataError(
                f"{short}:{line[0]}: the file ends before this line; allowed: two files with as "
                "many lines"
            )
        yield source[0], {"source": source[1], "target": target[1]}


def read(
    file: SourceFile, options: SourceOptions, skipped: Skipped
) -> Iterator[tuple[int, Dialogue]]:
    """Line and the pair as an exchange: the user says the source, the bot answers the target."""
    for line, both in read_pairs(file, options):
        yield line, alternate([both["source"], both["target"]])
