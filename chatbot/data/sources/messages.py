"""Records with `messages`: our own format, and that of OpenAI's API."""

from collections.abc import Iterator

from chatbot.data.records import Dialogue, Skipped, SourceFile, parse_dialogue
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.rows import read_rows


def read(
    file: SourceFile, options: SourceOptions, skipped: Skipped
) -> Iterator[tuple[int, Dialogue]]:
    """Line and dialogue of each record."""
    for line, row in read_rows(file, options):
        yield line, parse_dialogue(row, f"{file.path}:{line}", skipped)
