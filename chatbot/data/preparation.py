"""Preparation: from sources to a folder with examples, a tokenizer and an account of both.

It is built beside its place and appears whole or not at all. Dialogues, tokenizer and examples are
each taken over from the folder that is replaced, where what they are made from is the same.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from datasets import Dataset, DatasetDict, Features, List, NamedSplit, Value, load_from_disk
from transformers import PreTrainedTokenizerFast

from chatbot.data.cleaning import Cleaned, Cleaning, StepLog, apply_steps
from chatbot.data.dullness import read_shard
from chatbot.data.examples import dialogue_examples
from chatbot.data.records import DataError, SourceFile
from chatbot.data.selection import select_dialogues
from chatbot.data.sources import SourceOptions, find_sources, read_source
from chatbot.data.splits import SPLITS, Split, split_of
from chatbot.folders import check_replaceable, whole_folder
from chatbot.tokenization import SPECIAL_TOKENS, Level, train_tokenizer

FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "reply": Value("string"),
        "dialogue": Value("int32"),  # its number within the split
        "turn": Value("int32"),
        "source": Value("string"),
    }
)
REPORT_NAME = "preparation.json"
_FORMAT = 1  # raised when the same sources and settings give other files
_ONE_PROCESS = 8_000_000  # bytes of sources below which more processes take longer
_TOKENIZER_TEXTS = 1_000_000  # turns that a tokenizer learns from

Counts = dict[str, dict[str, int]]


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
    steps: dict[str, Any]
    """For each step of cleaning: its setting, how often it did something, and the first ten times.
    For `leaks` also how many dialogues of each held-out split stood in another one."""
    made_from: dict[str, str]
    """SHA-256 of all that dialogues, tokenizer and examples each depend on."""

    def summary(self) -> str:
        """What was kept and what was dropped, a line a split."""
        lines = []
        for split in SPLITS:
            kept, made = sum(self.dialogues[split].values()), sum(self.examples[split].values())
            lines.append(f"{split}: {kept:,} dialogues, {made:,} replies")
        reasons: Counter[str] = Counter()
        for sources in self.dropped.values():
            for counts in sources.values():
                reasons.update(counts)
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        return "\n".join(
            [*lines, f"dropped: {dropped or 'nothing'}", f"{self.vocab_size:,} tokens"]
        )


def training_texts(
    sources: Sequence[Path | str],
    options: SourceOptions | None = None,
    clean: Cleaning | Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """What is said in dialogues that may be trained on, for a tokenizer: no held-out word.

    Errors as in `read_source`.
    """
    cleaning, log = Cleaning.of(clean or {}), StepLog()
    for file in find_sources(sources, options):
        if file.split == "train":
            for _, dialogue in read_source(file, options):
                cleaned = apply_steps(dialogue["messages"], cleaning, log)
                if isinstance(cleaned, Cleaned) and split_of(cleaned.origin) != "test":
                    yield from (message["content"] for message in cleaned.messages)


def load_prepared(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> DatasetDict:
    """The splits of a folder that `prepare` wrote.

    Raises:
        FileNotFoundError: `prepare` did not write it.
        ValueError: Its ids are not those of `tokenizer`, where one is given.
    """
    if not (folder / REPORT_NAME).is_file():
        raise FileNotFoundError(
            f"{folder} has no {REPORT_NAME}: not a folder of `chatbot prepare`."
        )
    if tokenizer is not None:
        own = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
        if own.get_vocab() != tokenizer.get_vocab():
            raise ValueError(f"{folder} was prepared with another tokenizer than the model's.")
    return load_from_disk(str(folder))


def prepare(
    sources: Sequence[Path | str],
    output: Path,
    *,
    tokenizer: PreTrainedTokenizerFast | Path | None = None,
    vocab_size: int | None = None,
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

    An `output` made from the same files with the same settings stays, whatever `overwrite` says.

    Raises:
        DataError: a source that is missing or wrong, or too little data for a train split.
        FileExistsError: `output` exists and `overwrite` is false, or is not a prepared folder.
        OSError: nothing can be written beside `output`.
        ValueError: a setting that is not possible.
    """
    if max_source_tokens < 4 or max_target_tokens < 2 or (num_proc is not None and num_proc < 1):
        raise ValueError(
            f"max_source_tokens={max_source_tokens}, max_target_tokens={max_target_tokens}, "
            f"num_proc={num_proc}: must be at least 4, 2 and 1"
        )
    if tokenizer is not None and (vocab_size, level, lowercase) != (None, "bpe", True):
        raise ValueError("vocab_size, level and lowercase are for training: not with a tokenizer")
    ready = None if tokenizer is None else _load_tokenizer(tokenizer)
    cleaning = Cleaning.of(clean or {})
    options = SourceOptions(format, encoding, bot, columns or {}, streaming)
    files = find_sources(sources, options)
    if not files:
        raise DataError("sources: none is given")
    hashes = {str(path): _sha256(path) for file in files for path in file.files}
    given = ready.backend_tokenizer.to_str() if ready else [vocab_size, level, lowercase]
    made_from = _made_from(
        dialogues=[
            [(str(file.path), file.split, file.source, file.format) for file in files],
            hashes,
            asdict(options),
            asdict(cleaning),
            # nobody knows whether a dataset of the Hub is still the same
            str(uuid4()) if any(file.is_hub for file in files) else None,
        ],
        tokenizer=given,
        examples=[max_source_tokens, max_target_tokens],
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
            skipped = old.skipped
        else:
            folder.mkdir()
            selection = select_dialogues(files, options, folder, scratch, cleaning, num_proc)
            dialogues, dropped = _plain(selection.kept), _plain(selection.dropped)
            skipped = dict(selection.skipped)
            steps = selection.log.plain(cleaning)
            steps["leaks"]["held_out"] = {s: len(found) for s, found in selection.leaked.items()}
        if not dialogues["train"]:
            raise DataError(f"sources: no dialogue is left to train on (dropped: {dropped})")
        if old and old.made_from.get("tokenizer") == made_from["tokenizer"]:
            shutil.copytree(output / "tokenizer", built / "tokenizer", copy_function=_link)
            ready = _load_tokenizer(built / "tokenizer")
        else:
            if ready is None:
                texts = _spread_texts(folder, sum(dialogues["train"].values()))
                ready = train_tokenizer(
                    texts, level=level, vocab_size=vocab_size, lowercase=lowercase
                )
            ready.save_pretrained(built / "tokenizer")
        examples = _write_examples(built, scratch, max_source_tokens, max_target_tokens, num_proc)
        report = PreparationReport(
            dialogues=dialogues,
            examples=examples,
            dropped=dropped,
            vocab_size=len(ready),
            settings={
                "sources": [str(source) for source in sources],
                "tokenizer": _tokenizer_settings(tokenizer, level, lowercase),
                "max_source_tokens": max_source_tokens,
                "max_target_tokens": max_target_tokens,
                "reading": asdict(options),
                "weights": {f.source: f.weight for f in files if f.weight is not None},
                "clean": asdict(cleaning),
            },
            files=hashes,
            skipped=skipped,
            steps=steps,
            made_from=made_from,
        )
        text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
        (built / REPORT_NAME).write_text(f"{text}\n", encoding="utf-8")
    return PreparationReport(**json.loads(text))


def dialogue_shards(folder: Path, split: Split) -> list[Path]:
    """The files with the cleaned dialogues of a split, in a folder that `prepare` wrote."""
    return sorted((folder / "dialogues").glob(f"{split}-*.jsonl"))


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


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _load_tokenizer(tokenizer: PreTrainedTokenizerFast | Path) -> PreTrainedTokenizerFast:
    if isinstance(tokenizer, Path):
        if not tokenizer.is_dir():
            raise ValueError(f"tokenizer={tokenizer}: no such folder")
        loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(tokenizer)
        return _load_tokenizer(loaded)
    missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
    if missing:
        raise ValueError(f"tokenizer: it lacks {', '.join(missing)}; use one of train_tokenizer")
    return tokenizer


def _write_examples(
    built: Path, scratch: Path, max_source_tokens: int, max_target_tokens: int, num_proc: int
) -> Counts:
    """Build the examples of every split and save them into `built`. Returns their counts."""
    splits = DatasetDict()
    for split in SPLITS:
        shards = dialogue_shards(built, split)
        if not shards:
            # A generator that yields nothing is an error in `datasets`.
            nothing: dict[str, list[Any]] = {name: [] for name in FEATURES}
            splits[split] = Dataset.from_dict(nothing, features=FEATURES, split=NamedSplit(split))
            continue
        processes = min(num_proc, len(shards))
        with _interrupts_as_such():
            splits[split] = Dataset.from_generator(
                _generate_examples,
                features=FEATURES,
                cache_dir=str(scratch / "cache"),
                gen_kwargs={
                    "shards": [str(shard) for shard in shards],
                    "tokenizer_folder": str(built / "tokenizer"),
                    "max_source_tokens": max_source_tokens,
                    "max_target_tokens": max_target_tokens,
                },
                num_proc=processes if processes > 1 else None,
                split=NamedSplit(split),
            )
    # An empty split is saved without a file, and then not loaded, unless one is asked for.
    num_shards = {split: None if len(examples) else 1 for split, examples in splits.items()}
    splits.save_to_disk(built, num_shards=num_shards)
    return {split: dict(Counter(examples["source"])) for split, examples in splits.items()}


@contextmanager
def _interrupts_as_such() -> Iterator[None]:
    """Ctrl-C makes the processes of `datasets` fail in other ways: it is the KeyboardInterrupt."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            cause = cause.__context__
        raise


def _generate_examples(
    shards: list[str], tokenizer_folder: str, max_source_tokens: int, max_target_tokens: int
) -> Iterator[dict[str, Any]]:
    # Strings and numbers only: `datasets` hashes the arguments, and splits the list of shards.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    for record in (record for shard in shards for record in read_shard(Path(shard))):
        for example in dialogue_examples(
            tokenizer,
            record["messages"],
            max_source_tokens=max_source_tokens,
            max_target_tokens=max_target_tokens,
        ):
            if example["turn"] not in record["muted"]:
                yield {**example, "dialogue": record["dialogue"], "source": record["source"]}


def _spread_texts(folder: Path, dialogues: int) -> Iterator[str]:
    """Turns of the train split: all, or of so many dialogues, spread evenly, that memory lasts."""
    step = 1 + dialogues * 8 // _TOKENIZER_TEXTS  # a dialogue has about eight turns
    records = (r for shard in sorted(folder.glob("train-*.jsonl")) for r in read_shard(shard))
    for record in islice(records, 0, None, step):
        yield from (message["content"] for message in record["messages"])


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
