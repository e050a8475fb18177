"""How sources are read, where they do not say it themselves."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field

from chatbot.data.records import DataError

COLUMNS = (
    "context",
    "reply",
    "speaker",
    "text",
    "dialogue",
    "turns",
    "messages",
    "conversations",
    "source",
    "target",
)


@dataclass(frozen=True)
class SourceOptions:
    """Options of `chatbot prepare` that concern reading."""

    format: str | None = None
    """A key of `IMPORTERS`, where it is not to be recognised."""
    encoding: str | None = None
    """Of text files, where it is neither UTF-8 nor told by a byte order mark."""
    bot: str | None = None
    """The speaker whom the model learns to be, where speakers have names."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """From one of `COLUMNS` to the name that it has in a table."""
    streaming: bool = True
    """Whether datasets of the Hub are read without keeping a copy."""

    def __post_init__(self) -> None:
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise DataError(
                    f"encoding={self.encoding!r}: no such encoding; allowed: utf-8, utf-16, "
                    "cp1252, shift_jis and the others of Python"
                ) from error
        for name in self.columns:
            if name not in COLUMNS:
                raise DataError(f"columns: {name!r} is unknown; allowed: {', '.join(COLUMNS)}")
