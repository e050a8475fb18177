"""Duplicates, exact and near: MinHash signatures whose bands lie on disk.

Two dialogues that share most of their word triples share, very likely, one of ten bands of six
minima (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3). Those that do are
compared word for word.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rensa import RMinHash

from chatbot.data.records import Message
from chatbot.data.splits import normalized_text

SIMILAR = 0.8  # Jaccard index of the word triples: of 100 such pairs, 95 share a band
_BANDS, _ROWS = 10, 6
_FEWEST = 20  # triples: short dialogues that differ in a word may be meant to
# In scripts without spaces between words, a character counts as one.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_SIGNED = 1 << 63  # sqlite's integers
_SLOTS = 1 << 27  # bits of each of two sets: at 30 million numbers, a fifth seem to repeat


def triples(messages: Sequence[Message]) -> set[str]:
    """All runs of three words of the normalised text; the whole text where it has fewer."""
    words = _WORD.findall(normalized_text(messages))
    runs = zip(words, words[1:], words[2:], strict=False)
    return {" ".join(run) for run in runs} or {" ".join(words)}


def similarity(one: set[str], other: set[str]) -> float:
    """Jaccard index: shared triples among all."""
    return len(one & other) / len(one | other)


def bands(shingles: set[str]) -> list[int]:
    """Ten numbers, one of which two dialogues share if they are alike; none for short ones."""
    if len(shingles) < _FEWEST:
        return []
    signature = RMinHash(num_perm=_BANDS * _ROWS, seed=1)
    signature.update(sorted(shingles))
    minima = signature.digest()
    return [
        hash((band, *minima[band * _ROWS : (band + 1) * _ROWS])) % (2 * _SIGNED) - _SIGNED
        for band in range(_BANDS)
    ]


class Repeats:
    """Which of very many numbers were added twice: of the others, some seem so too.

    Two sets of bits, by the rest of the number modulo their size: the first time sets it in one,
    the second in the other.
    """

    def __init__(self) -> None:
        self._once, self._again = (np.zeros(_SLOTS // 8, np.uint8) for _ in range(2))
        self._found = self._again.data

    def add(self, numbers: Sequence[int]) -> None:
        slots, counts = np.unique(np.array(numbers, np.int64) % _SLOTS, return_counts=True)
        places, bits = slots >> 3, (1 << (slots & 7)).astype(np.uint8)
        twice = (counts > 1) | (self._once[places] & bits > 0)
        np.bitwise_or.at(self._again, places[twice], bits[twice])
        np.bitwise_or.at(self._once, places, bits)

    def __contains__(self, number: int) -> bool:
        slot = number % _SLOTS
        return bool(self._found[slot >> 3] >> (slot & 7) & 1)


class DuplicateIndex:
    """The places of the dialogues kept so far, by digest and by band, in a file.

    Of `repeats`, to which the numbers of all dialogues were added before: what only one of them has
    is neither noted nor looked for.
    """

    def __init__(self, path: Path, repeats: Repeats) -> None:
        self._repeats = repeats
        self._database = open_scratch(
            path,
            "CREATE TABLE digests (digest BLOB PRIMARY KEY, place INTEGER) WITHOUT ROWID;"
            "CREATE TABLE bands (band INTEGER, place INTEGER, PRIMARY KEY (band, place))"
            " WITHOUT ROWID;",
        )

    def add(self, place: int, digest: bytes, bands: Sequence[int]) -> None:
        if number_of(digest) in self._repeats:
            self._database.execute("INSERT OR IGNORE INTO digests VALUES (?, ?)", (digest, place))
        rows = [(band, place) for band in set(bands) if band in self._repeats]
        if rows:
            self._database.executemany("INSERT INTO bands VALUES (?, ?)", rows)

    def same(self, digest: bytes) -> int | None:
        """The place of a dialogue with that digest."""
        if number_of(digest) not in self._repeats:
            return None
        query = "SELECT place FROM digests WHERE digest = ?"
        found = self._database.execute(query, (digest,)).fetchone()
        return None if found is None else found[0]

    def alike(self, bands: Sequence[int]) -> Iterator[int]:
        """Places of dialogues that share a band, those that share most first; at most 50."""
        shared = [band for band in bands if band in self._repeats]
        if not shared:
            return
        query = (
            f"SELECT place FROM bands WHERE band IN ({','.join('?' * len(shared))}) "
            "GROUP BY place ORDER BY COUNT(*) DESC, place LIMIT 50"
        )
        yield from (place for (place,) in self._database.execute(query, shared).fetchall())

    def close(self) -> None:
        self._database.close()


def number_of(digest: bytes) -> int:
    """What stands for a digest among `Repeats`."""
    return int.from_bytes(digest[:8], signed=True)


def open_scratch(path: Path, tables: str) -> sqlite3.Connection:
    """A database that nobody needs after this process: nothing is kept in case of a crash."""
    database = sqlite3.connect(path, isolation_level=None)
    pragmas = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768;"
    database.executescript(f"{pragmas} {tables} BEGIN;")
    return database
