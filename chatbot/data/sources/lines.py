"""Plain text: the user and the bot by turns, a line each; a blank line ends a dialogue."""

from collections.abc import Iterator

from chatbot.data.reading import text_lines
from chatbot.data.records import Dialogue, Skipped, SourceFile
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.speakers import Turn, alternate, gather


def read(
    file: SourceFile, options: SourceOptions, skipped: Skipped
) -> Iterator[tuple[int, Dialogue]]:
    """First line and dialogue."""
    for line, turns in gather(_turns(file, options)):
        yield line, alternate(text for _, text in turns)


def _turns(file: SourceFile, options: SourceOptions) -> Iterator[tuple[int, int, Turn]]:
    dialogue = 0
    for number, line in text_lines(file.path, options.encoding):
        if line.strip():
            yield number, dialogue, ("", line)
        else:
            dialogue += 1
