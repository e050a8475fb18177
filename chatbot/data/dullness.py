"""The dullness filter: replies that fit anything are learned less often, or not at all.

By count, or by the entropy of what they answer (Csaky et al. 2019, "Improving Neural Conversational
Models with Entropy-Based Data Filtering", target entropy with utterances taken as they are).
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from math import inf, log2
from pathlib import Path
from typing import Any

from chatbot.data.cleaning import Cleaning, StepLog
from chatbot.data.duplicates import open_scratch
from chatbot.data.splits import normalized_text

_TABLES = """
CREATE TABLE said (reply TEXT, question TEXT, count INTEGER, PRIMARY KEY (reply, question))
    WITHOUT ROWID;
CREATE TABLE dull (reply TEXT PRIMARY KEY, total INTEGER, entropy REAL, heard INTEGER)
    WITHOUT ROWID;
"""
_COUNT = "INSERT INTO said VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1"
_FIND = """
INSERT INTO dull
SELECT reply, SUM(count) AS total, log2(SUM(count)) - SUM(nlogn(count)) / SUM(count) AS entropy, 0
FROM said GROUP BY reply HAVING total > ? OR entropy > ?
"""


def count_replies(shards: Sequence[Path], database: Path) -> sqlite3.Connection:
    """A table `said` of how often each reply follows each question, both normalised."""
    said = open_scratch(database, _TABLES)
    for shard in shards:
        for record in read_shard(shard):
            said.executemany(_COUNT, [texts for _, texts in _replies(record)])
    return said


def mute_dull_replies(
    shards: Sequence[Path], cleaning: Cleaning, database: Path, log: StepLog
) -> None:
    """Mute, in files of dialogues, the replies that are said too often or after too much else.

    Of one that is said more than `max_reply_count` times, so many stay, spread evenly. One whose
    questions have an entropy above `max_reply_entropy` bits goes everywhere.
    """
    said = count_replies(shards, database)
    said.create_function("nlogn", 1, lambda count: count * log2(count))
    said.create_function("log2", 1, log2)
    limits = cleaning.max_reply_count or inf, cleaning.max_reply_entropy or inf
    said.execute(_FIND, limits)
    for shard in shards:
        rewritten = shard.with_suffix(".new")
        with rewritten.open("w", encoding="utf-8") as file:
            for record in read_shard(shard):
                for turn, (reply, _) in list(_replies(record)):
                    step = _dull_step(said, reply, *limits)
                    if step:
                        log.add(step, record["messages"][turn]["content"])
                        record["muted"].append(turn)
                file.write(f"{json.dumps(record, ensure_ascii=False)}\n")
        rewritten.replace(shard)
    said.close()


def _dull_step(
    said: sqlite3.Connection, reply: str, max_count: float, max_entropy: float
) -> str | None:
    """The step that mutes this occurrence of a reply."""
    change = "UPDATE dull SET heard = heard + 1 WHERE reply = ? RETURNING total, entropy, heard"
    found = said.execute(change, (reply,)).fetchone()
    if found is None:
        return None
    total, entropy, heard = found
    if entropy > max_entropy:
        return "max_reply_entropy"
    # One stays of each of `max_count` equal parts.
    stays = total <= max_count or heard * max_count // total > (heard - 1) * max_count // total
    return None if stays else "max_reply_count"


def _replies(record: dict[str, Any]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Turn, and normalised reply and question, of each reply that is learned."""
    messages = record["messages"]
    for turn in range(1, len(messages)):
        if messages[turn]["role"] == "assistant" and turn not in record["muted"]:
            reply, question = (normalized_text([messages[i]]) for i in (turn, turn - 1))
            yield turn, (reply, question)


def read_shard(shard: Path) -> Iterator[dict[str, Any]]:
    """The dialogues of a file that `prepare` wrote."""
    with shard.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
