"""Records with named values, from JSON, CSV, Parquet or the Hub."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from datasets import load_dataset

from chatbot.data.reading import csv_rows, json_values, read_head
from chatbot.data.records import DataError, SourceFile, kind
from chatbot.data.sources import hub
from chatbot.data.sources.options import SourceOptions


def read_rows(file: SourceFile, options: SourceOptions) -> Generator[tuple[int, dict[str, Any]]]:
    """Line (or number) and values of each record; `options.columns` adds names to them."""
    for number, row in _raw_rows(file, options):
        if not isinstance(row, dict):
            raise DataError(f"{file.path}:{number}: {kind(row)}; allowed: an object")
        missing = [name for name in options.columns.values() if row and name not in row]
        if missing:
            raise DataError(
                f"{file.path}:{number}: no column {missing[0]!r}; allowed: {', '.join(row)}"
            )
        yield number, row | {role: row[name] for role, name in options.columns.items() if row}


def _raw_rows(file: SourceFile, options: SourceOptions) -> Iterator[tuple[int, Any]]:
    if file.is_hub:
        return enumerate(hub.rows(str(file.path), options.streaming), start=1)
    if is_parquet(file.path):
        return enumerate(_parquet_rows(file.path), start=1)
    if is_json(file.path, options.encoding):
        return json_values(file.path, options.encoding)
    return csv_rows(file.path, options.encoding)


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does."""
    return read_head(path)[0].startswith(b"PAR1")


def is_json(path: Path, encoding: str | None) -> bool:
    """Whether a file is called JSON, or begins like an object or an array of objects."""
    text = "".join(read_head(path, encoding)[1].split())[:2].removeprefix("\ufeff")
    return _suffix(path) in (".json", ".jsonl") or text.startswith("{") or text == "[{"


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    except ValueError as error:  # of Arrow
        raise DataError(f"{path}: not a whole Parquet file ({error})") from error
