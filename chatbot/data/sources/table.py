"""Tables: a context and its reply in each row, or a speaker and a text, or a list of turns."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from chatbot.data.records import DataError, Dialogue, Skipped, SourceFile, kind
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.rows import read_rows
from chatbot.data.sources.speakers import Turn, alternate, cast, gather

# What columns are called, without regard to case; the first that is there counts.
_NAMES = {
    "context": "context question prompt instruction input query user message",
    "reply": "reply response answer completion output assistant bot",
    "speaker": "speaker sender author from role user name",
    "text": "text utterance message content line value",
    "dialogue": "dialogue dialogue_id dialog_id conversation_id conv_id chat_id dialogue dialog",
    "turns": "turns dialog dialogue utterances",
}
_KINDS = (("context", "reply"), ("speaker", "text"), ("turns",))


def find_columns(row: dict[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """The columns of a row by what they hold, or nothing. What is `given` decides."""
    lowered = {name.lower(): name for name in row}
    found = {
        role: next((lowered[name] for name in names.split() if name in lowered), None)
        for role, names in _NAMES.items()
    } | dict(given)
    for roles in sorted(_KINDS, key=lambda roles: -len(set(roles) & set(given))):
        if all(found[role] for role in roles) and (
            roles != ("turns",) or isinstance(row[found["turns"] or ""], list)
        ):
            roles = (*roles, "dialogue") if roles == ("speaker", "text") else roles
            return {role: name for role in roles if (name := found[role])}
    return {}


def read(
    file: SourceFile, options: SourceOptions, skipped: Skipped
) -> Iterator[tuple[int, Dialogue]]:
    """Line and dialogue of each row, or of rows that follow each other and belong together."""
    filled = read_rows(file, options)
    first = next(((line, row) for line, row in filled if row), None)
    if first is None:
        return
    columns = find_columns(first[1], options.columns)
    if not columns:
        raise DataError(
            f"{file.path}:1: not a file of dialogues, with columns {', '.join(first[1])}; allowed: "
            "context and reply, or speaker and text (name them: --column reply=NAME), messages, "
            "conversations or turns; of pairs, with --task seq2seq, source and target"
        )
    rows = chain([first], filled)
    if "speaker" in columns:
        dialogues = gather(_turns(rows, columns, file))
        once = "dialogue" not in columns
        yield from cast(dialogues, options.bot, where=file.path, once=once)
        return
    for line, row in rows:
        if row:
            where = f"{file.path}:{line}"
            cells = [_cell(row, column, where) for column in columns.values()]
            parts = (cell if isinstance(cell, list) else [cell] for cell in cells)
            texts = [_text(text, where) for text in chain.from_iterable(parts)]
            # A context ends with what the user said.
            ends = len(texts) % 2 == 1 and "reply" in columns
            yield line, alternate(["", *texts] if ends else texts)


def _turns(
    rows: Iterator[tuple[int, dict[str, Any]]], columns: dict[str, str], file: SourceFile
) -> Iterator[tuple[int, object, Turn]]:
    """Rows with what tells their dialogue apart: its name, or how many blank rows came before."""
    blanks = 0
    for line, row in rows:
        if not any(row.values()):
            blanks += 1
            continue
        where = f"{file.path}:{line}"
        speaker, text, *dialogue = (_cell(row, column, where) for column in columns.values())
        yield line, dialogue or blanks, (str(speaker), _text(text, where))


def _cell(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise DataError(f"{where}: no {column}; allowed: what the first record has, with texts")
    return row[column]


def _text(value: object, where: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise DataError(f"{where}: a text is {kind(value)}; allowed: a string")
