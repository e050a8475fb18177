"""Preparation: from sources to a folder with examples, a tokenizer and an account of both.

It is built beside its place and appears whole or not at all. Dialogues, tokenizer and examples are
each taken over from the folder that is replaced, where what they are made from is the same.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from hashlib import file_digest, sha256
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, get_args
from uuid import uuid4

from datasets import DatasetDict, load_from_disk
from transformers import PreTrainedTokenizerFast

from chatbot.data.cleaning import Cleaned, Cleaning, StepLog, apply_steps
from chatbot.data.dullness import read_shard
from chatbot.data.example_files import write_examples
from chatbot.data.examples import Example, dialogue_examples, pair_examples
from chatbot.data.records import ROLES, DataError, SourceFile
from chatbot.data.selection import select_dialogues
from chatbot.data.sources import SourceOptions, find_sources, read_source, split_weight
from chatbot.data.sources.parallel import as_pairs, pair
from chatbot.data.splits import SPLITS, Split, split_of
from chatbot.folders import check_replaceable, whole_folder
from chatbot.tokenization import (
    SPECIAL_TOKENS,
    TARGET_TOKENIZER,
    Level,
    Tokenizers,
    is_chat,
    load_tokenizers,
    train_tokenizer,
)

REPORT_NAME = "preparation.json"
_FORMAT = 2  # raised when the same sources and settings give other files
_ONE_PROCESS = 8_000_000  # bytes of sources below which more processes take longer
_TOKENIZER_TEXTS = 1_000_000  # turns that a tokenizer learns from
_TOKENIZER_LENGTH = 2_000  # characters of each: what BPE takes grows with the square of a word

Counts = dict[str, dict[str, int]]
Task = Literal["chat", "seq2seq"]


@dataclass(frozen=True)
class PreparationReport:
    """What `preparation.json` holds. Counts are nested as split, then source."""

    dialogues: Counts
    examples: Counts
    dropped: dict[str, Counts]
    """Split of the file, then source, then reason."""
    vocab_size: int
    settings: dict[str, Any]
    files: dict[str, str]
    """SHA-256 of each source file."""
    skipped: dict[str, int]
    """Messages that are not said and were left out while reading, by what they are."""
    bots: dict[str, dict[str, list[str]]]
    """By source, and by what its records say that it is: who was chosen to be the bot where
    speakers have names, the first three."""
    steps: dict[str, Any]
    """For each step of cleaning: its setting, how often it did something, and the first ten times.
    For `leaks` also how many dialogues of each held-out split stood in another one."""
    made_from: dict[str, str]
    """SHA-256 of all that dialogues, tokenizer and examples each depend on."""
    target_vocab_size: int | None = None
    """Of the second tokenizer, where there are two."""

    def summary(self) -> str:
        """What was kept and what was dropped, a line a split, and who is the bot."""
        lines = []
        nouns = (
            ("dialogues", "replies") if self.settings["task"] == "chat" else ("pairs", "examples")
        )
        for split in SPLITS:
            kept, made = sum(self.dialogues[split].values()), sum(self.examples[split].values())
            lines.append(f"{split}: {kept:,} {nouns[0]}, {made:,} {nouns[1]}")
        sizes = [self.vocab_size, *filter(None, [self.target_vocab_size])]
        tokens = f"{' and '.join(f'{size:,}' for size in sizes)} tokens"
        bots = "; ".join(
            f"{', '.join(names[:2])}{' and others' * (len(names) > 2)} in {source}"
            for called in self.bots.values()
            for source, names in called.items()
            if names
        )
        named = [f"the bot: {shorten(bots, 160)} (another: --bot NAME)"] if bots else []
        return "\n".join([*lines, _counted(self.dropped), *named, tokens])


def training_texts(
    sources: Sequence[Path | str],
    options: SourceOptions | None = None,
    clean: Cleaning | Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """What is said in dialogues that may be trained on, for a tokenizer: no word of the test.

    Errors as in `read_source`.
    """
    cleaning, log = Cleaning.of(clean or {}), StepLog()
    for file in find_sources(sources, options):
        if file.split == "train":
            for _, dialogue in read_source(file, options):
                cleaned = apply_steps(dialogue["messages"], cleaning, log)
                if isinstance(cleaned, Cleaned) and split_of(cleaned.origin) != "test":
                    yield from (m["content"][:_TOKENIZER_LENGTH] for m in cleaned.messages)


def load_prepared(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast | None = None,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
) -> DatasetDict:
    """The splits of a folder that `prepare` wrote.

    Raises:
        FileNotFoundError: `prepare` did not write it.
        ValueError: It is for another task than `tokenizer`, or its ids are not those of the
            tokenizers, where they are given.
    """
    if not (folder / REPORT_NAME).is_file():
        raise FileNotFoundError(
            f"{folder} has no {REPORT_NAME}: not a folder of `chatbot prepare`."
        )
    if tokenizer is not None:
        own = load_tokenizers(folder / "tokenizer")
        if is_chat(own[0]) != is_chat(tokenizer):
            task = "chat" if is_chat(own[0]) else "seq2seq"
            raise ValueError(f"{folder} was prepared for task {task}, which is not the model's.")
        for mine, other in ((own[0], tokenizer), (own[-1], target_tokenizer)):
            if other is not None and mine.get_vocab() != other.get_vocab():
                raise ValueError(f"{folder} was prepared with another tokenizer than the model's.")
    return load_from_disk(str(folder))


def prepare(
    sources: Sequence[Path | str],
    output: Path,
    *,
    task: Task | None = None,
    tokenizer: PreTrainedTokenizerFast | Path | None = None,
    vocab_size: int | None = None,
    target_vocab_size: int | None = None,
    shared_vocabulary: bool = False,
    level: Level = "bpe",
    lowercase: bool = True,
    max_source_tokens: int = 96,
    max_target_tokens: int = 48,
    format: str | None = None,
    encoding: str | None = None,
    bot: str | None = None,
    columns: Mapping[str, str] | None = None,
    streaming: bool = True,
    clean: Cleaning | Mapping[str, Any] | None = None,
    overwrite: bool = False,
    num_proc: int | None = None,
) -> PreparationReport:
    """Write `output`: a `DatasetDict` folder with `dialogues/`, `tokenizer/`, `preparation.json`.

    Dialogues are read as `SourceOptions` says (`format` to `streaming`), cleaned as `clean` says,
    split (`split_of`) and rid of duplicates: one is kept, in test rather than validation, and there
    rather than in train. Without a `tokenizer`, one is trained on the train split, where
    `vocab_size`, `level` and `lowercase` mean what `train_tokenizer` says. `num_proc` processes
    work side by side, by default as many as there are cores; it changes nothing in the result.

    With task `seq2seq`, the default where each source is `a.it+a.en`, a dialogue is a pair, of a
    source that the user says and its target, and no example has speakers. Two tokenizers are
    trained, the target's (of `target_vocab_size`, or as many as the source's) lies in
    `tokenizer/target_tokenizer/`; with `shared_vocabulary` one.

    An `output` made from the same files with the same settings stays, whatever `overwrite` says.

    Raises:
        DataError: a source that is missing or wrong, or too little data for a train split.
        FileExistsError: `output` exists and `overwrite` is false, or is not a prepared folder.
        OSError: nothing can be written beside `output`.
        ValueError: a setting that is not possible.
    """
    for name, value, least in (
        ("max_source_tokens", max_source_tokens, 4),
        ("max_target_tokens", max_target_tokens, 2),
        ("num_proc", 1 if num_proc is None else num_proc, 1),
    ):
        if type(value) is not int or value < least:
            raise ValueError(
                f"{name}={value!r} is not possible; allowed: a whole number of at least {least}."
            )
    for name, size in (("vocab_size", vocab_size), ("target_vocab_size", target_vocab_size)):
        if size is not None and type(size) is not int:
            raise ValueError(f"{name}={size!r} is not possible; allowed: a whole number.")
    task = natural_task(sources) if task is None else task
    if task not in get_args(Task):
        raise ValueError(f"task={task!r}: allowed are {', '.join(get_args(Task))}")
    two = task == "seq2seq" and not shared_vocabulary
    if (target_vocab_size is not None and not two) or (shared_vocabulary and task == "chat"):
        raise ValueError("target_vocab_size, shared_vocabulary: allowed is one, with task seq2seq")
    wanted = (vocab_size, target_vocab_size, shared_vocabulary, level, lowercase)
    if tokenizer is not None and wanted != (None, None, False, "bpe", True):
        raise ValueError("vocab_size, level and lowercase are for training: not with a tokenizer")
    sizes = [vocab_size]
    if two:
        sizes.append(vocab_size if target_vocab_size is None else target_vocab_size)
    ready = None if tokenizer is None else _given_tokenizers(tokenizer, task)
    cleaning = Cleaning.of(clean or {})
    if cleaning.max_length_ratio and task == "chat":
        raise ValueError("clean.max_length_ratio: allowed with task seq2seq, of pairs")
    if cleaning.both_sides and task == "seq2seq":
        raise ValueError("clean.both_sides: allowed with task chat; pairs the other way: b+a")
    options = SourceOptions(format, encoding, bot, columns or {}, streaming)
    files = find_sources(sources, options)
    if task == "seq2seq":
        files = [*map(as_pairs, files)]
    if not files:
        raise DataError("sources: none is given")
    hashes = {str(path): _sha256(path) for file in files for path in file.files}
    given = _hash([task, *(each.backend_tokenizer.to_str() for each in ready)]) if ready else None
    made_from = _made_from(
        dialogues=[
            [(str(file.path), file.split, file.source, file.format) for file in files],
            hashes,
            asdict(options),
            asdict(cleaning),
            # nobody knows whether a dataset of the Hub is still the same
            str(uuid4()) if any(file.is_hub for file in files) else None,
        ],
        tokenizer=given or [task, sizes, level, lowercase],
        examples=[max_source_tokens, max_target_tokens, [file.weight for file in files]],
    )
    old = _old_report(output)
    if old and old.made_from == made_from:
        return old
    check_replaceable(output, overwrite=overwrite, mark=REPORT_NAME)
    num_proc = num_proc or _useful_processes(files)

    with whole_folder(output, overwrite=overwrite, mark=REPORT_NAME) as built:
        scratch, folder = built.parent, built / "dialogues"
        if old and old.made_from.get("dialogues") == made_from["dialogues"]:
            shutil.copytree(output / "dialogues", folder, copy_function=_link)
            dialogues, dropped, steps = old.dialogues, old.dropped, old.steps
            skipped, bots = old.skipped, old.bots
        else:
            folder.mkdir()
            selection = select_dialogues(files, options, folder, scratch, cleaning, num_proc)
            _check_named(cleaning.both_sides, selection.bots)
            dialogues, dropped = _plain(selection.kept), _plain(selection.dropped)
            skipped, bots = dict(selection.skipped), _plain(selection.bots)
            steps = selection.log.plain(cleaning)
            steps["leaks"]["held_out"] = {s: len(found) for s, found in selection.leaked.items()}
        if not dialogues["train"]:
            raise DataError(f"sources: no dialogue is left to train on ({_counted(dropped)})")
        if old and old.made_from.get("tokenizer") == made_from["tokenizer"]:
            shutil.copytree(output / "tokenizer", built / "tokenizer", copy_function=_link)
            ready = load_tokenizers(built / "tokenizer")
        else:
            if ready is None:
                number = sum(dialogues["train"].values())
                ready = _train_tokenizers(folder, number, sizes, level, lowercase)
            _save_tokenizers(ready, task, built / "tokenizer")
        make = partial(
            _examples,
            tokenizer_folder=built / "tokenizer",
            max_source_tokens=max_source_tokens,
            max_target_tokens=max_target_tokens,
        )
        examples = write_examples(built, make, made_from["examples"], num_proc)
        report = PreparationReport(
            dialogues=dialogues,
            examples=examples,
            dropped=dropped,
            vocab_size=len(ready[0]),
            settings={
                "task": task,
                "sources": [str(source) for source in sources],
                "tokenizer": _tokenizer_settings(tokenizer, level, lowercase),
                "max_source_tokens": max_source_tokens,
                "max_target_tokens": max_target_tokens,
                "reading": asdict(options),
                "weights": {
                    name: file.weight
                    for file in files
                    for name in bots[file.source]
                    if file.weight is not None and name in examples["train"]
                },
                "clean": asdict(cleaning),
            },
            files=hashes,
            skipped=skipped,
            bots=bots,
            steps=steps,
            made_from=made_from,
            target_vocab_size=len(ready[1]) if len(ready) == 2 else None,
        )
        text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
        (built / REPORT_NAME).write_text(f"{text}\n", encoding="utf-8")
    return PreparationReport(**json.loads(text))


def natural_task(sources: Sequence[Path | str]) -> Task:
    """`seq2seq` where each source is two files of parallel text, `a.it+a.en`; else `chat`."""
    return "seq2seq" if all(pair(split_weight(str(s))[0]) for s in sources) else "chat"


def dialogue_shards(folder: Path, split: Split) -> list[Path]:
    """The files with the cleaned dialogues of a split, in a folder that `prepare` wrote."""
    return sorted((folder / "dialogues").glob(f"{split}-*.jsonl"))


def _check_named(both_sides: Sequence[str], found: Mapping[str, Iterable[str]]) -> None:
    known = {source for sources in found.values() for source in sources}
    for name in both_sides:
        if name not in known:
            raise DataError(f"clean.both_sides={name!r}: allowed are {', '.join(sorted(known))}")


def _made_from(dialogues: Any, tokenizer: Any, examples: Any) -> dict[str, str]:
    """What each part depends on, as a hash: a trained tokenizer on the dialogues too."""
    keys = {"dialogues": _hash([_FORMAT, dialogues])}
    keys["tokenizer"] = _hash(
        tokenizer if isinstance(tokenizer, str) else [keys["dialogues"], tokenizer]
    )
    keys["examples"] = _hash([*keys.values(), examples])
    return keys


def _old_report(output: Path) -> PreparationReport | None:
    """What lies in `output` already; None where another version wrote it, or nothing does."""
    try:
        return PreparationReport(**json.loads((output / REPORT_NAME).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _useful_processes(files: Sequence[SourceFile]) -> int:
    size = sum(path.stat().st_size for file in files for path in file.files)
    return 1 if size < _ONE_PROCESS else os.cpu_count() or 1


def _counted(dropped: dict[str, Counts]) -> str:
    """How many dialogues went for which reason, the commonest first."""
    reasons: Counter[str] = Counter()
    for counts in (counts for sources in dropped.values() for counts in sources.values()):
        reasons.update(counts)
    said = ", ".join(f"{count:,} {why}" for why, count in reasons.most_common())
    return f"dropped: {said or 'nothing'}"


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _given_tokenizers(tokenizer: PreTrainedTokenizerFast | Path, task: Task) -> Tokenizers:
    if isinstance(tokenizer, Path) and not tokenizer.is_dir():
        raise ValueError(f"tokenizer={tokenizer}: no such folder")
    found = load_tokenizers(tokenizer) if isinstance(tokenizer, Path) else [tokenizer]
    missing = [t for t in SPECIAL_TOKENS if any(t not in each.get_vocab() for each in found)]
    if missing:
        raise ValueError(f"tokenizer: it lacks {', '.join(missing)}; use one of train_tokenizer")
    if task == "chat" and not is_chat(found[0]):
        raise ValueError("tokenizer: it has no chat template; allowed: with task seq2seq")
    return found


def _train_tokenizers(
    folder: Path, dialogues: int, sizes: Sequence[int | None], level: Level, lowercase: bool
) -> Tokenizers:
    """As many as there are sizes, on so many dialogues of the train split: two for two sides."""
    sides = [ROLES] if len(sizes) == 1 else [(role,) for role in ROLES]
    texts = (_spread_texts(folder, dialogues, roles) for roles in sides)
    return [
        train_tokenizer(text, level=level, vocab_size=size, lowercase=lowercase)
        for text, size in zip(texts, sizes, strict=True)
    ]


def _save_tokenizers(tokenizers: Tokenizers, task: Task, folder: Path) -> None:
    """Write them as `load_tokenizers` finds them; those of pairs without a chat template."""
    for tokenizer, name in zip(deepcopy(tokenizers), ("", TARGET_TOKENIZER), strict=False):
        if task == "seq2seq":
            tokenizer.chat_template = None
        tokenizer.save_pretrained(folder / name)


@lru_cache(maxsize=1)
def _tokenizers_once(folder: Path) -> Tokenizers:
    """For each process once: their memory is not given back."""
    return load_tokenizers(folder)


def _examples(
    shard: Path, tokenizer_folder: Path, max_source_tokens: int, max_target_tokens: int
) -> Iterator[dict[str, Any]]:
    """The replies to learn of a file of dialogues."""
    tokenizers = _tokenizers_once(tokenizer_folder)
    make: Callable[..., Iterator[Example]] = dialogue_examples
    if not is_chat(tokenizers[0]):
        make = partial(pair_examples, target_tokenizer=tokenizers[-1])
    for record in read_shard(shard):
        for example in make(
            tokenizers[0],
            record["messages"],
            max_source_tokens=max_source_tokens,
            max_target_tokens=max_target_tokens,
        ):
            if example["turn"] not in record["muted"]:
                yield {**example, "dialogue": record["dialogue"], "source": record["source"]}


def _spread_texts(folder: Path, dialogues: int, roles: Sequence[str]) -> Iterator[str]:
    """What these say in the train split: all, or so much, spread evenly, that memory lasts."""
    step = 1 + dialogues * 8 // _TOKENIZER_TEXTS  # a dialogue has about eight turns
    records = (r for shard in sorted(folder.glob("train-*.jsonl")) for r in read_shard(shard))
    for record in islice(records, 0, None, step):
        said = (message for message in record["messages"] if message["role"] in roles)
        yield from (message["content"][:_TOKENIZER_LENGTH] for message in said)


def _tokenizer_settings(
    tokenizer: PreTrainedTokenizerFast | Path | None, level: Level, lowercase: bool
) -> dict[str, Any]:
    if tokenizer is None:
        return {"trained": True, "level": level, "lowercase": lowercase}
    name = tokenizer if isinstance(tokenizer, Path) else tokenizer.name_or_path
    return {"trained": False, "name": str(name)}


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _plain(counts: Any) -> Any:
    """Counters and enumerations as what JSON knows."""
    if isinstance(counts, dict):
        return {str(key): _plain(value) for key, value in counts.items()}
    return counts
