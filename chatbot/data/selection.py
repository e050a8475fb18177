"""From sources to the dialogues that are kept: cleaned on all cores, split, without duplicates.

Dialogues pass twice. At first each is cleaned and noted in the file of its split; then the splits
are read again, test before validation before train, so that of two that are alike the held-out one
stays, whichever came first. Only counts and one batch for each core are in memory.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from datasets.utils.tqdm import tqdm

from chatbot.data.cleaning import (
    Cleaning,
    DropReason,
    StepLog,
    apply_steps,
    exchanged,
    muted_replies,
)
from chatbot.data.dullness import mute_dull_replies
from chatbot.data.duplicates import (
    SIMILAR,
    DuplicateIndex,
    Repeats,
    bands,
    number_of,
    similarity,
    triples,
)
from chatbot.data.records import Message, SourceFile
from chatbot.data.sources import SourceOptions, read_source
from chatbot.data.splits import SPLITS, Split, dialogue_digest, split_of
from chatbot.data.workers import in_order

SHARD_SIZE = 5000  # dialogues in a file
_BATCH, _BATCH_SIZE = 200, 1 << 20  # dialogues, characters that a process cleans at once


# Split of the file, source, what is said, whether there is a validation file beside it.
Raw = tuple[Split, str, list[Message], bool]
# Lines by split; split, source and reason of what was dropped; what the steps did.
# And all numbers that tell duplicates, once more.
Result = tuple[list[tuple[Split, str]], list[tuple[Split, str, DropReason]], StepLog, list[int]]


@dataclass
class Selection:
    """What was kept and dropped, by split and source, and what the steps did."""

    kept: dict[str, Counter[str]] = field(
        default_factory=lambda: {split: Counter() for split in SPLITS}
    )
    dropped: dict[str, defaultdict[str, Counter[str]]] = field(
        default_factory=lambda: {split: defaultdict(Counter) for split in SPLITS}
    )
    skipped: Counter[str] = field(default_factory=Counter)
    bots: defaultdict[str, defaultdict[str, list[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """The first three whom the bot was chosen to be, by file and the source of its records."""
    log: StepLog = field(default_factory=StepLog)
    leaked: dict[str, set[int]] = field(
        default_factory=lambda: {split: set() for split in SPLITS[1:]}
    )
    """Held-out dialogues that stood, or nearly, in another split too."""


def select_dialogues(
    files: Sequence[SourceFile],
    options: SourceOptions,
    folder: Path,
    scratch: Path,
    cleaning: Cleaning,
    num_proc: int,
) -> Selection:
    """Write the dialogues to keep into `folder/SPLIT-NUMBER.jsonl`."""
    selection = Selection()
    task = partial(_clean_batch, cleaning=cleaning)
    raw = _read(files, options, selection)
    repeats = Repeats()
    _note_dialogues(in_order(task, _batches(raw), num_proc), scratch, selection, repeats)
    index = DuplicateIndex(scratch / "duplicates.sqlite", repeats)
    with ExitStack() as stack:
        noted = [stack.enter_context((scratch / f"{split}.noted").open("rb")) for split in SPLITS]
        for split in reversed(SPLITS):
            lines = stack.enter_context((scratch / f"{split}.noted").open("rb"))
            kept = _without_duplicates(split, lines, noted, index, cleaning, selection)
            for number, first in enumerate(kept):
                with (folder / f"{split}-{number:05}.jsonl").open("w", encoding="utf-8") as file:
                    file.writelines(chain([first], islice(kept, SHARD_SIZE - 1)))
    index.close()
    if cleaning.max_reply_count is not None or cleaning.max_reply_entropy is not None:
        shards = sorted(folder.glob("train-*.jsonl"))
        mute_dull_replies(shards, cleaning, scratch / "replies.sqlite", selection.log)
    return selection


def _note_dialogues(
    results: Iterable[Result], scratch: Path, selection: Selection, repeats: Repeats
) -> None:
    """Write each dialogue into `scratch/SPLIT.noted`, with its digest and bands."""
    with ExitStack() as stack:
        noted = {
            split: stack.enter_context(
                # a lone surrogate, which `unicode` would have removed, is no text in UTF-8
                (scratch / f"{split}.noted").open("w", encoding="utf-8", errors="replace")
            )
            for split in SPLITS
        }
        progress = stack.enter_context(tqdm(desc="cleaning", unit=" dialogues", disable=None))
        for lines, dropped, log, numbers in results:
            repeats.add(numbers)
            for split, line in lines:
                noted[split].write(line)
            for split, source, reason in dropped:
                selection.dropped[split][source][reason] += 1
            selection.log.update(log)
            progress.update(len(lines) + len(dropped))


def _read(
    files: Sequence[SourceFile], options: SourceOptions, selection: Selection
) -> Iterator[Raw]:
    validated = {_set_of(file) for file in files if file.split == "validation"}
    for file in sorted(files, key=lambda file: SPLITS.index(file.split), reverse=True):
        beside = _set_of(file) in validated
        for _, dialogue in read_source(file, options, selection.skipped):
            source, bot = dialogue.get("source", file.source), dialogue.get("bot")
            bots = selection.bots[file.source][source]
            if bot and bot not in bots and len(bots) < 3:
                bots.append(bot)
            yield file.split, source, dialogue["messages"], beside


def _set_of(file: SourceFile) -> Path:
    """What a validation file is for: the files of its folder, or the dataset of the Hub."""
    return file.path.parent / file.source if file.is_hub else file.path.parent


def _clean_batch(batch: Sequence[Raw], cleaning: Cleaning) -> Result:
    """Lines to note, dialogues dropped, and what the steps did."""
    log, lines, dropped = StepLog(), [], []
    numbers: list[int] = []
    near = cleaning.near_duplicates or cleaning.leaks
    for origin, source, messages, has_validation in batch:
        cleaned = apply_steps(messages, cleaning, log)
        if isinstance(cleaned, DropReason):
            dropped.append((origin, source, cleaned))
            continue
        split = split_of(cleaned.origin) if origin == "train" else origin
        if origin == "train" and split == "validation" and has_validation:
            split = "train"
        digest = dialogue_digest(cleaned.messages)
        shared = bands(triples(cleaned.messages)) if near else []
        numbers += [number_of(digest), *shared]
        sides = [cleaned.muted]
        if split == "train" and source in cleaning.both_sides:
            other = muted_replies(exchanged(cleaned.messages), cleaning, log)
            sides += [] if other is None else [other]
        fields = [digest.hex(), origin, source, shared, sides, cleaned.messages]
        noted = "\t".join(json.dumps(value, ensure_ascii=False) for value in fields)
        lines.append((split, f"{noted}\n"))
    return lines, dropped, log, numbers


def _without_duplicates(
    split: Split,
    lines: Iterable[bytes],
    noted: Sequence[BinaryIO],
    index: DuplicateIndex,
    cleaning: Cleaning,
    selection: Selection,
) -> Iterator[str]:
    """The records of a split, as lines, that are like none that was kept before."""
    rank, offset = SPLITS.index(split), 0
    for line in tqdm(lines, desc=f"choosing {split}", unit=" dialogues", disable=None):
        place, offset = offset * len(SPLITS) + rank, offset + len(line)
        digest, origin, source, shared, sides, messages = line.rstrip(b"\n").split(b"\t")
        key, numbers = bytes.fromhex(digest[1:-1].decode()), json.loads(shared)
        name = json.loads(source)
        found = _twin(key, numbers, messages, rank, noted, index, cleaning)
        if found is None:
            index.add(place, key, numbers)
            muted, *others = json.loads(sides)
            yield _record(name, muted, messages.decode(), selection.kept[split])
            for muted in others:
                selection.log.add("both_sides", _said(messages))
                other = json.dumps(exchanged(json.loads(messages)), ensure_ascii=False)
                yield _record(name, muted, other, selection.kept[split])
            continue
        reason, step, twin = found
        selection.dropped[json.loads(origin)][name][reason] += 1
        selection.log.add(step, _said(messages), _said(_messages_at(twin, noted)))
        if reason == DropReason.LEAK:
            selection.leaked[SPLITS[twin % len(SPLITS)]].add(twin)


def _record(source: str, muted: list[int], messages: str, kept: Counter[str]) -> str:
    """The line of a dialogue, whose messages are JSON already; it is counted."""
    number = kept.total()
    kept[source] += 1
    name = json.dumps(source, ensure_ascii=False)
    return f'{{"dialogue": {number}, "source": {name}, "muted": {muted}, "messages": {messages}}}\n'


def _twin(
    digest: bytes,
    numbers: list[int],
    messages: bytes,
    rank: int,
    noted: Sequence[BinaryIO],
    index: DuplicateIndex,
    cleaning: Cleaning,
) -> tuple[DropReason, str, int] | None:
    """Why a dialogue goes, the step that says so, and the place of the one that stays."""
    same = index.same(digest)
    if same is not None:
        if same % len(SPLITS) != rank and cleaning.leaks:
            return DropReason.LEAK, "leaks", same
        if same % len(SPLITS) == rank and cleaning.duplicates:
            return DropReason.DUPLICATE, "duplicates", same
    own: set[str] | None = None
    for place in index.alike(numbers):
        leaks = place % len(SPLITS) != rank
        if place != same and (cleaning.leaks if leaks else cleaning.near_duplicates):
            own = own or triples(json.loads(messages))
            if similarity(own, triples(json.loads(_messages_at(place, noted)))) >= SIMILAR:
                if leaks:
                    return DropReason.LEAK, "leaks", place
                return DropReason.NEAR_DUPLICATE, "near_duplicates", place
    return None


def _line_at(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.readline()


def _messages_at(place: int, noted: Sequence[BinaryIO]) -> bytes:
    offset, rank = divmod(place, len(SPLITS))
    return _line_at(noted[rank], offset).rstrip(b"\n").rpartition(b"\t")[2]


def _said(messages: bytes) -> str:
    return " / ".join(message["content"] for message in json.loads(messages))


def _batches(items: Iterable[Raw]) -> Iterator[list[Raw]]:
    batch: list[Raw] = []
    size = 0
    for item in items:
        batch.append(item)
        size += sum(len(message["content"]) for message in item[2])
        if len(batch) == _BATCH or size > _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
