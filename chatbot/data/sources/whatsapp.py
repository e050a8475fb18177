"""WhatsApp exports, of Android and iOS, in most languages: dates and hours in any of their forms.

A silence of six hours begins a new dialogue. Left out: notices, media and deleted messages.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chatbot.data.reading import text_lines
from chatbot.data.records import DataError, Dialogue, Skipped, SourceFile
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.speakers import Turn, cast, gather

SILENCE = 6 * 60  # minutes
_MARKS = "\u200e\u200f\u202a\u202b\u202c\ufeff"  # of direction; iOS puts one before its own words
_LATE = "下午|傍晚|晚上|午後|오후"  # after noon
_START = re.compile(
    r"(?P<bracket>\[)?(?P<date>\d{1,4}[./-] ?\d{1,2}[./-] ?\d{1,4}\.?),? (?:[^\W\d]{1,4} )?"
    r"(?P<before>凌晨|清晨|早上|上午|中午|午前|오전|" + _LATE + r")? ?"
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d\d)"
    r"(?:[:.]\d\d)?(?: ?(?P<half>[ap])\.? ?m\.?)?(?(bracket)\]| -) (?P<rest>.*)",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"([^:\n\"“]{1,60}): ?(.*)", re.DOTALL)
_EDITED = re.compile(r"\s*(?:\u200e<[^<>]*>|<(?=[^\W\d_])(?![a-z])[^<>]+ [^<>]+>)$")
_ATTACHMENT = re.compile(r"\S+\.\w{3,4} \([^()]+\)(?:\n|$)")
_MEDIA = re.compile(r"<[^<>]+>|null|")
_DELETED = re.compile(
    r"(?:(?:This message was|You) deleted(?: this message)?"
    r"|Diese Nachricht wurde gelöscht|Du hast diese Nachricht gelöscht"
    r"|Se eliminó este mensaje|Eliminaste este mensaje"
    r"|Ce message a été supprimé|Vous avez supprimé ce message"
    r"|Questo messaggio è stato eliminato|Hai eliminato questo messaggio"
    r"|Mensagem apagada|Esta mensagem foi apagada|Você apagou esta mensagem"
    r"|Dit bericht is verwijderd|(?:U hebt|Je hebt) dit bericht verwijderd)\.?"
)


@dataclass
class _Entry:
    line: int
    date: str
    minutes: int
    text: str


def recognise(head: str) -> bool:
    """Whether a text begins with the date of a message."""
    return _start(next((line for line in head.splitlines() if line.strip()), "")) is not None


def read(
    file: SourceFile, options: SourceOptions, skipped: Skipped
) -> Iterator[tuple[int, Dialogue]]:
    """First line and dialogue. The bot is the same person in all of them."""
    dialogues = gather(_turns(file, options, skipped))
    yield from cast(dialogues, options.bot, where=file.path, once=True)


def _turns(
    file: SourceFile, options: SourceOptions, skipped: Skipped
) -> Iterator[tuple[int, int, Turn]]:
    dialogue, date, minutes = 0, "", 0
    for entry in _entries(file, options):
        parts = _SPEAKER.fullmatch(entry.text)
        if parts is None:
            skipped["notice"] += 1
            continue
        # Whatever form dates have: another one is the next day, or later.
        if entry.minutes - minutes + 24 * 60 * (entry.date != date) > SILENCE:
            dialogue += 1
        date, minutes = entry.date, entry.minutes
        speaker, text = parts[1].strip(_MARKS + " ~"), _EDITED.sub("", parts[2])
        if text.startswith(tuple(_MARKS)) or _DELETED.fullmatch(text):
            skipped["notice"] += 1
        elif _MEDIA.fullmatch(text := _ATTACHMENT.sub("", text, count=1)):
            skipped["media"] += 1
        else:
            yield entry.line, dialogue, (speaker, text)


def _entries(file: SourceFile, options: SourceOptions) -> Iterator[_Entry]:
    """Messages and notices; lines without a date belong to the one before."""
    entry = None
    for number, line in text_lines(file.path, options.encoding):
        start = _start(line)
        if start:
            if entry is not None:
                yield entry
            entry = _Entry(number, start["date"], _minutes(start), start["rest"])
        elif entry is not None:
            entry.text += f"\n{line}"
        elif line.strip():
            raise DataError(
                f"{file.path}:{number}: not a message of WhatsApp; allowed: a line such as "
                "'31/12/2023, 21:15 - Anna: hi' or '[12/31/23, 9:15:03 PM] Anna: hi'"
            )
    if entry is not None:
        yield entry


def _start(line: str) -> re.Match[str] | None:
    # Only the part that is ours: spaces without a break stand before "PM".
    line = line.lstrip(_MARKS)
    return _START.fullmatch(re.sub("[\u00a0\u202f]", " ", line[:40]) + line[40:])


def _minutes(start: re.Match[str]) -> int:
    hour, half = int(start["hour"]), (start["half"] or "").lower()
    if half or start["before"]:
        late = half == "p" or start["before"] in ("中午", *_LATE.split("|"))
        hour = hour % 12 + 12 * late
    return 60 * hour + int(start["minute"])
