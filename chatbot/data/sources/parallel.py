"""Parallel text: two files whose lines belong together, given as `a.en+a.it`; for task seq2seq
records with `source` and `target`, too."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from chatbot.data.reading import text_lines
from chatbot.data.records import DataError, Dialogue, Pair, Skipped, SourceFile
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.rows import read_rows
from chatbot.data.sources.speakers import alternate


def pair(spec: str) -> tuple[Path, Path] | None:
    """The two files of a source, if it names two."""
    parts = spec.split("+")
    sides = ((Path("+".join(parts[:n])), Path("+".join(parts[n:]))) for n in range(1, len(parts)))
    return next((both for both in sides if all(path.is_file() for path in both)), None)


def as_pairs(file: SourceFile) -> SourceFile:
    """The file, to be read as pairs. Raises DataError where it holds conversations."""
    if file.format not in ("parallel", "table"):
        raise DataError(
            f"{file.path}: conversations ({file.format}) are no pairs; allowed with task seq2seq: "
            "two files, as in a.en+a.it, or records with source and target"
        )
    return replace(file, format="parallel")


def read_pairs(file: SourceFile, options: SourceOptions) -> Iterator[tuple[int, Pair]]:
    """Line and pair."""
    if file.beside is None:
        yield from _record_pairs(file, options)
        return
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


def _record_pairs(file: SourceFile, options: SourceOptions) -> Iterator[tuple[int, Pair]]:
    for line, row in read_rows(file, options):
        if not row:
            continue
        source, target = row.get("source"), row.get("target")
        if not isinstance(source, str) or not isinstance(target, str):
            raise DataError(
                f"{file.path}:{line}: not a pair, with {', '.join(row)}; allowed: texts named "
                "source and target (name them: --column source=NAME --column target=NAME)"
            )
        yield line, {"source": source, "target": target}
