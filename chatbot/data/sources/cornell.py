"""The Cornell Movie-Dialogs Corpus: movie_lines.txt and movie_conversations.txt in one folder."""

import re
from collections.abc import Iterator
from pathlib import Path

from chatbot.data.reading import text_lines
from chatbot.data.records import DataError, Dialogue, Skipped, SourceFile
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.speakers import Turn, cast

SEPARATOR = " +++$+++ "
CONVERSATIONS, LINES = "movie_conversations.txt", "movie_lines.txt"
_LINE_ID = re.compile(r"'(L\d+)'")


def recognise(head: str) -> bool:
    """Whether a text begins like either file."""
    return SEPARATOR in head.partition("\n")[0]


def pair(path: Path) -> tuple[Path, Path]:
    """Conversations and lines, given either or their folder."""
    folder = path if path.is_dir() else path.parent
    found = [next(folder.glob(f"{name}*"), None) for name in (CONVERSATIONS, LINES)]
    if found[0] is None or found[1] is None:
        missing = LINES if found[0] else CONVERSATIONS
        raise DataError(f"{path}: {missing} is missing; allowed: both files in one folder")
    return found[0], found[1]


def read(
    file: SourceFile, options: SourceOptions, skipped: Skipped
) -> Iterator[tuple[int, Dialogue]]:
    """Line and dialogue of each conversation. All the lines are held in memory."""
    assert file.beside is not None
    encoding = options.encoding or "iso-8859-1"
    said = {
        cells[0]: (cells[3], cells[4])
        for _, cells in _cells(file.beside, encoding, 5, "id, character, film, name, text")
    }
    yield from cast(
        _conversations(file.path, encoding, said), options.bot, where=file.beside, once=False
    )


def _conversations(
    path: Path, encoding: str, said: dict[str, Turn]
) -> Iterator[tuple[int, list[Turn]]]:
    for number, cells in _cells(path, encoding, 4, "character, character, film, ['L1', 'L2']"):
        ids = _LINE_ID.findall(cells[3])
        unknown = [each for each in ids if each not in said]
        if unknown or not ids:
            what = f"no line {unknown[0]} in {LINES}" if unknown else "no lines"
            raise DataError(f"{path}:{number}: {what}; allowed: a list such as ['L1', 'L2']")
        yield number, [said[each] for each in ids]


def _cells(path: Path, encoding: str, count: int, what: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in text_lines(path, encoding):
        cells = line.split(SEPARATOR.rstrip(), count - 1)
        if len(cells) != count:
            raise DataError(f"{path}:{number}: {len(cells)} fields; allowed: {count}: {what}")
        yield number, [cell.strip() for cell in cells]
