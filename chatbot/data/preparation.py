"""Preparation: from sources to a folder with examples, a tokenizer and an account of both.

Dialogues stream through a temporary folder beside the output, which appears whole or not at all.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, NamedSplit, Value, load_from_disk
from transformers import PreTrainedTokenizerFast

from chatbot.data.cleaning import DropReason, clean_dialogue
from chatbot.data.examples import dialogue_examples
from chatbot.data.records import DataError, Message, SourceFile, find_files, read_dialogues
from chatbot.data.splits import SPLITS, Split, dialogue_digest, is_test, split_of
from chatbot.folders import whole_folder
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


def training_texts(sources: Sequence[Path]) -> Iterator[str]:
    """What is said in dialogues that may be trained on, for a tokenizer: no held-out word.

    Errors as in `read_dialogues`.
    """
    files = (file for source in sources for file in find_files(source) if file.split == "train")
    for file in files:
        for _, dialogue in read_dialogues(file.path):
            messages = clean_dialogue(dialogue["messages"])
            if not isinstance(messages, DropReason) and not is_test(messages):
                yield from (message["content"] for message in messages)


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
    overwrite: bool = False,
    num_proc: int = 1,
) -> PreparationReport:
    """Write `output`: a `DatasetDict` folder with `tokenizer/` and `preparation.json` in it.

    Dialogues are cleaned and split (`split_of`); of those with the same words one is kept, in test
    rather than validation, and there rather than in train. Without a `tokenizer`, one is trained on
    the train split, where `vocab_size`, `level` and `lowercase` mean what `train_tokenizer` says.
    `num_proc` changes the order of the examples, not the examples.

    Raises:
        DataError: a source that is missing or wrong, or too little data for a train split.
        FileExistsError: `output` exists and `overwrite` is false, or is not a prepared folder.
        OSError: nothing can be written beside `output`.
        ValueError: a setting that is not possible.
    """
    if max_source_tokens < 4 or max_target_tokens < 2 or num_proc < 1:
        raise ValueError(
            f"max_source_tokens={max_source_tokens}, max_target_tokens={max_target_tokens}, "
            f"num_proc={num_proc}: must be at least 4, 2 and 1"
        )
    if tokenizer is not None and (vocab_size, level, lowercase) != (None, "bpe", True):
        raise ValueError("vocab_size, level and lowercase are for training: not with a tokenizer")
    ready = None if tokenizer is None else _load_tokenizer(tokenizer)
    files = {file.path.resolve(): file for source in sources for file in find_files(Path(source))}
    if not files:
        raise DataError("sources: none is given")

    with whole_folder(output, overwrite=overwrite, mark=REPORT_NAME) as built:
        temporary = built.parent
        dialogues, dropped = _write_dialogues(list(files.values()), temporary, num_proc)
        if ready is None:
            texts = _contents(_shards(temporary, "train"))
            ready = train_tokenizer(texts, level=level, vocab_size=vocab_size, lowercase=lowercase)
        ready.save_pretrained(built / "tokenizer")
        examples = _write_examples(temporary, built, max_source_tokens, max_target_tokens, num_proc)
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
            },
            files={str(file.path): _sha256(file.path) for file in files.values()},
        )
        text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
        (built / REPORT_NAME).write_text(f"{text}\n", encoding="utf-8")
    return report


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


def _write_dialogues(
    files: Sequence[SourceFile], folder: Path, num_shards: int
) -> tuple[Counts, dict[str, Counts]]:
    """Clean, de-duplicate and split, into `folder/SPLIT-SHARD.jsonl`. Returns kept and dropped."""
    has_validation = any(file.split == "validation" for file in files)
    kept: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    dropped: dict[Split, defaultdict[str, Counter[str]]] = {
        split: defaultdict(Counter) for split in SPLITS
    }
    seen: set[bytes] = set()
    with ExitStack() as stack:
        shards = {
            split: [
                stack.enter_context((folder / f"{split}-{shard}.jsonl").open("w", encoding="utf-8"))
                for shard in range(num_shards)
            ]
            for split in SPLITS
        }
        # Test first and train last: whichever copy of a dialogue comes first is the one kept.
        for file in sorted(files, key=lambda file: SPLITS.index(file.split), reverse=True):
            for _, dialogue in read_dialogues(file.path):
                source = dialogue.get("source", file.source)
                messages = clean_dialogue(dialogue["messages"])
                if isinstance(messages, DropReason):
                    dropped[file.split][source][messages] += 1
                    continue
                digest = dialogue_digest(messages)
                if digest in seen:
                    dropped[file.split][source][DropReason.DUPLICATE] += 1
                    continue
                seen.add(digest)
                split = split_of(digest) if file.split == "train" else file.split
                if file.split == "train" and split == "validation" and has_validation:
                    split = "train"
                number = kept[split].total()
                record = {"dialogue": number, "source": source, "messages": messages}
                shard = shards[split][number % num_shards]
                shard.write(f"{json.dumps(record, ensure_ascii=False)}\n")
                kept[split][source] += 1
    if not kept["train"]:
        raise DataError(f"sources: no dialogue is left to train on (dropped: {_plain(dropped)})")
    return _plain(kept), _plain(dropped)


def _write_examples(
    folder: Path, built: Path, max_source_tokens: int, max_target_tokens: int, num_proc: int
) -> Counts:
    """Build the examples of every split and save them into `built`. Returns their counts."""
    splits = DatasetDict()
    for split in SPLITS:
        shards = _shards(folder, split)
        if not any(shard.stat().st_size for shard in shards):
            # A generator that yields nothing is an error in `datasets`.
            nothing: dict[str, list[Any]] = {name: [] for name in FEATURES}
            splits[split] = Dataset.from_dict(nothing, features=FEATURES, split=NamedSplit(split))
            continue
        splits[split] = Dataset.from_generator(
            _generate_examples,
            features=FEATURES,
            cache_dir=str(folder / "cache"),
            gen_kwargs={
                "shards": [str(shard) for shard in shards],
                "tokenizer_folder": str(built / "tokenizer"),
                "max_source_tokens": max_source_tokens,
                "max_target_tokens": max_target_tokens,
            },
            num_proc=num_proc if num_proc > 1 else None,
            split=NamedSplit(split),
        )
    # An empty split is saved without a file, and then not loaded, unless one is asked for.
    num_shards = {split: None if len(examples) else 1 for split, examples in splits.items()}
    splits.save_to_disk(built, num_shards=num_shards)
    return {split: dict(Counter(examples["source"])) for split, examples in splits.items()}


def _generate_examples(
    shards: list[str], tokenizer_folder: str, max_source_tokens: int, max_target_tokens: int
) -> Iterator[dict[str, Any]]:
    # Strings and numbers only: `datasets` hashes the arguments, and splits the list of shards.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    for record in _records(shards):
        for example in dialogue_examples(
            tokenizer,
            record["messages"],
            max_source_tokens=max_source_tokens,
            max_target_tokens=max_target_tokens,
        ):
            yield {**example, "dialogue": record["dialogue"], "source": record["source"]}


def _shards(folder: Path, split: Split) -> list[Path]:
    return sorted(folder.glob(f"{split}-*.jsonl"))


def _records(shards: Sequence[Path | str]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        with open(shard, encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _contents(shards: Sequence[Path]) -> Iterator[str]:
    for record in _records(shards):
        messages: list[Message] = record["messages"]
        yield from (message["content"] for message in messages)


def _tokenizer_settings(
    tokenizer: PreTrainedTokenizerFast | Path | None, level: Level, lowercase: bool
) -> dict[str, Any]:
    if tokenizer is None:
        return {"trained": True, "level": level, "lowercase": lowercase}
    name = tokenizer if isinstance(tokenizer, Path) else tokenizer.name_or_path
    return {"trained": False, "name": str(name)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _plain(counts: Any) -> Any:
    """Counters and enumerations as what JSON knows."""
    if isinstance(counts, dict):
        return {str(key): _plain(value) for key, value in counts.items()}
    return counts
