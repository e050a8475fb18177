"""Files as text, whatever their compression, encoding and ends of lines: streamed, with numbers."""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

# UTF-16's mark is the beginning of UTF-32's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CHUNK = 1 << 16
_UNDECODED = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of a byte


class DataError(ValueError):
    """Wrong data, told as `file:line: what is wrong; what is allowed`."""


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content, unpacked where it is gzip by name or by content."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as file:
        packed = path.suffix == ".gz" or file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def read_head(path: Path, encoding: str | None = None) -> tuple[bytes, str]:
    """The first 64 KB of a file, and the same as text, with what cannot be decoded replaced."""
    with _told_as_data_errors(path, [0]), open_bytes(path) as stream:
        head = stream.read(_CHUNK)
    text = head.decode(encoding or _encoding(head), errors="replace")
    return head, "\n".join(text.splitlines())


def text_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Number and text of each line. The encoding is UTF-8, or what a byte order mark says.

    Raises:
        DataError: at a byte that is not text in that encoding, or where a gzip file breaks off.
    """
    at = [0]
    with _text(path, encoding, at) as stream:
        for at[0], line in enumerate(stream, start=1):
            _check_decoded(line, path, at[0], stream.encoding)
            yield at[0], line.removesuffix("\n")


def json_values(path: Path, encoding: str | None = None) -> Iterator[tuple[int, Any]]:
    """Line and value of each JSON value: one a line, or the items of one array."""
    if read_head(path, encoding)[1].lstrip().startswith("["):
        yield from _array_items(path, encoding)
        return
    for number, line in text_lines(path, encoding):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: {_not_json(error)}") from error


def csv_rows(path: Path, encoding: str | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """Last line and cells of each row, by the names in the first; a blank line is an empty row.

    Cells are parted by what stands most often in the first line: comma, tab, semicolon or bar.
    Between tabs, quotes are characters like any other.
    """
    lines = (f"{line}\n" for _, line in text_lines(path, encoding))
    first = next(lines, "")
    delimiter = max(",\t;|", key=first.count)
    csv.field_size_limit(1 << 24)  # a quote that is never closed would swallow the whole file
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise DataError(f"{path}:1: two columns are called {twice!r}; allowed: one of each name")
    quoted = {"quoting": csv.QUOTE_NONE} if delimiter == "\t" else {"strict": True}
    rows = csv.reader(lines, delimiter=delimiter, **quoted)
    try:
        for cells in rows:
            if cells and len(cells) != len(names):
                raise DataError(
                    f"{path}:{rows.line_num + 1}: {len(cells)} cells; allowed: {len(names)}, "
                    f"as in the first line"
                )
            yield rows.line_num + 1, dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num + 1}: not CSV ({error})") from error


def _encoding(head: bytes) -> str:
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8-sig")


@contextmanager
def _text(path: Path, encoding: str | None, at: list[int]) -> Iterator[io.TextIOWrapper]:
    head, _ = read_head(path, encoding)
    encoding = encoding or _encoding(head)
    if b"\0" in head and not encoding.startswith(("utf-16", "utf-32")):
        raise DataError(
            f"{path}:1: not text (it holds zero bytes); allowed: text, "
            "if it is UTF-16 without a byte order mark with --encoding utf-16-le"
        )
    with _told_as_data_errors(path, at), open_bytes(path) as stream:
        yield io.TextIOWrapper(stream, encoding, errors="surrogateescape")


@contextmanager
def _told_as_data_errors(path: Path, at: list[int]) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{at[0] + 1}: not a whole gzip file ({error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{at[0] + 1}: not {_name(error.encoding)} ({error})") from error


def _name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()


def _check_decoded(text: str, path: Path, line: int, encoding: str) -> None:
    if not text.isascii() and (undecoded := _UNDECODED.search(text)):
        raise DataError(
            f"{path}:{line}: byte 0x{ord(undecoded[0]) - 0xDC00:02x} is not {_name(encoding)}; "
            "allowed: UTF-8, or what --encoding names, as in --encoding cp1252"
        )


def _array_items(path: Path, encoding: str | None) -> Iterator[tuple[int, Any]]:
    decoder, at = json.JSONDecoder(), [0]
    with _text(path, encoding, at) as stream:
        line, rest = 1, stream.read(_CHUNK).lstrip()[1:]
        while True:
            item = rest.lstrip(" \t\n,")
            line += rest.count("\n", 0, len(rest) - len(item))
            if item.startswith("]"):
                if (item[1:] + stream.read(_CHUNK)).strip():
                    raise DataError(f"{path}:{line}: text behind the array; allowed: one array")
                return
            try:
                value, end = decoder.raw_decode(item)
            except (ValueError, RecursionError) as error:
                more = "" if _is_hopeless(error, item) else stream.read(max(_CHUNK, len(item)))
                if not more:
                    raise DataError(f"{path}:{line}: {_not_json(error)}") from error
                rest = item + more
                continue
            _check_decoded(item[:end], path, line, stream.encoding)
            yield line, value
            line += item.count("\n", 0, end)
            at[0] = line
            rest = item[end:]


def _not_json(error: Exception) -> str:
    return f"not JSON ({error}); allowed: an object a line, or one array of objects"


def _is_hopeless(error: ValueError | RecursionError, text: str) -> bool:
    """Whether more text would not mend it: an item that breaks off is wrong only at its end."""
    if not isinstance(error, json.JSONDecodeError):
        return True
    return not error.msg.startswith("Unterminated") and error.pos < len(text) - 10
