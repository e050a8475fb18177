"""Any conversation: what a source is, recognised by its content, and its dialogues.

A new format is a module with `read`, and a line in `IMPORTERS` and in `recognise`.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from chatbot.data.reading import read_head
from chatbot.data.records import DataError, Dialogue, Skipped, SourceFile, describe_file
from chatbot.data.sources import cornell, hub, lines, messages, parallel, sharegpt, table, whatsapp
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.rows import is_json, is_parquet, read_rows

__all__ = ["IMPORTERS", "SourceOptions", "find_sources", "read_source", "recognise"]


Importer = Callable[[SourceFile, SourceOptions, Skipped], Iterator[tuple[int, Dialogue]]]

IMPORTERS: dict[str, Importer] = {
    "messages": messages.read,
    "sharegpt": sharegpt.read,
    "table": table.read,
    "whatsapp": whatsapp.read,
    "cornell": cornell.read,
    "parallel": parallel.read,
    "lines": lines.read,
}
_BY_SUFFIX = {".jsonl": "messages", ".json": "messages", ".csv": "table", ".tsv": "table"}
_DATA_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
_WEIGHT = re.compile(r"(.+):(\d+(?:\.\d+)?|\.\d+)")


def find_sources(
    sources: Sequence[Path | str], options: SourceOptions | None = None
) -> list[SourceFile]:
    """What is to be read, each file once: `PATH`, `A+B` or `hub:NAME`, with `:WEIGHT` behind it.

    In a folder count *.jsonl, *.csv, *.tsv and *.parquet at any depth, or else *.json and *.txt.

    Raises:
        DataError: there is no such thing, or its format is none that is known.
    """
    options = options or SourceOptions()
    if options.format not in (None, *IMPORTERS):
        raise DataError(f"format={options.format!r}: allowed are {', '.join(IMPORTERS)}")
    found: dict[tuple[Path, Path | None], SourceFile] = {}
    for source in sources:
        spec, weight = split_weight(str(source))
        for file in _find(spec, options):
            key = (file.path if file.is_hub else file.path.resolve(), file.beside)
            found[key] = replace(file, weight=weight)
    return list(found.values())


def read_source(
    file: SourceFile, options: SourceOptions | None = None, skipped: Skipped | None = None
) -> Iterator[tuple[int, Dialogue]]:
    """Line (or number) and dialogue, as a stream; `skipped` counts the messages left out.

    Raises:
        DataError: at the first line that is wrong, or when there is no dialogue.
    """
    options, skipped = options or SourceOptions(), Counter() if skipped is None else skipped
    empty = True
    for line, dialogue in IMPORTERS[file.format](file, options, skipped):
        empty = False
        yield line, dialogue
    if empty:
        raise DataError(f"{file.path}: the file is empty; allowed: at least one dialogue")


def split_weight(spec: str) -> tuple[str, float | None]:
    """A source and the weight behind it, unless a file is called just so."""
    match = _WEIGHT.fullmatch(spec)
    if match is None or Path(spec).exists():
        return spec, None
    if not float(match[2]):
        raise DataError(f"{spec}: a weight of 0; allowed: above 0, or leave the source out")
    return match[1], float(match[2])


def recognise(file: SourceFile, options: SourceOptions | None = None) -> str:
    """The format of a file or dataset, by its content and only then by its name.

    Raises:
        DataError: it is empty, not text, or like none of them.
    """
    options = options or SourceOptions()
    path = file.path
    if file.is_hub or is_parquet(path):
        return _recognise_rows(file, options)
    raw, head = read_head(path, options.encoding)
    if not head.strip("\ufeff \n\t"):
        raise DataError(f"{path}: the file is empty; allowed: at least one dialogue")
    if raw.startswith(b"PK\x03\x04"):
        raise DataError(f"{path}: a ZIP archive; allowed: what is in it, unpacked")
    if is_json(path, options.encoding):
        return _recognise_rows(file, options)
    if cornell.recognise(head):
        return "cornell"
    if whatsapp.recognise(head):
        return "whatsapp"
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in ("", ".txt"):
        return "lines"
    raise DataError(
        f"{path}:1: not a file of dialogues; allowed: JSON, CSV, Parquet, exports of WhatsApp, "
        f"*.txt with a line a turn, or --format with one of {', '.join(IMPORTERS)}"
    )


def _recognise_rows(file: SourceFile, options: SourceOptions) -> str:
    with closing(read_rows(file, options)) as rows:
        _, first = next(rows, (0, {}))
    return (
        "messages" if "messages" in first else "sharegpt" if "conversations" in first else "table"
    )


def _find(spec: str, options: SourceOptions) -> Iterator[SourceFile]:
    path = Path(spec)
    if spec.startswith("hub:"):
        for each in hub.splits(spec):
            name, _, split = hub.parse(each)
            file = SourceFile(Path(each), hub.SPLITS.get(split or "", "train"), Path(name).name)
            yield _with_format(file, options)
    elif both := parallel.pair(spec):
        yield replace(describe_file(both[0]), beside=both[1], format="parallel")
    elif conversations := next(path.glob(f"{cornell.CONVERSATIONS}*"), None):
        yield _with_format(describe_file(conversations), options)
    elif path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        names = [(each, each.name.removesuffix(".gz").lower()) for each in files]
        chosen = [each for each, name in names if name.endswith(_DATA_SUFFIXES)]
        chosen = chosen or [each for each, name in names if name.endswith((".json", ".txt"))]
        if not chosen:
            allowed = ", ".join(f"*{suffix}" for suffix in (*_DATA_SUFFIXES, ".json", ".txt"))
            raise DataError(f"{path}: no dialogues in this folder; allowed: {allowed}")
        for file in map(describe_file, chosen):
            yield _with_format(file, options)
    elif path.exists():
        yield _with_format(describe_file(path), options)
    else:
        sides = [*map(Path, spec.split("+"))]
        if any(side.exists() for side in sides):
            path = next((side for side in sides if not side.exists()), path)
        beside = os.listdir(path.parent) if path.parent.is_dir() else []
        near = get_close_matches(path.name, beside, n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise DataError(f"{path}: no such file or folder{hint}")


def _with_format(file: SourceFile, options: SourceOptions) -> SourceFile:
    chosen = options.format or recognise(file, options)
    if chosen == "parallel":
        raise DataError(f"{file.path}: one file of parallel text; allowed: two, as in a.en+a.it")
    if chosen == "cornell":
        conversations, said = cornell.pair(file.path)
        source = file.path.absolute().parent.name
        return replace(file, path=conversations, beside=said, format=chosen, source=source)
    return replace(file, format=chosen)
