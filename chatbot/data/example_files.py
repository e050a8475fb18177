"""The files of the examples: one for each file of dialogues, as `datasets.load_from_disk` reads it.

Made by all cores, and written once: `Dataset.from_generator` with `save_to_disk` writes them twice,
and maps all of them into memory.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import DatasetInfo, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from datasets.utils.tqdm import tqdm

from chatbot.data.splits import SPLITS, Split
from chatbot.data.workers import in_order

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

Examples = Callable[[Path], Iterator[dict[str, Any]]]
"""The examples of a file of dialogues; other processes call it too."""


def write_examples(
    folder: Path, examples: Examples, fingerprint: str, num_proc: int
) -> dict[str, dict[str, int]]:
    """Write a `DatasetDict` into `folder`, from its dialogues. Returns counts by split, source."""
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": SPLITS}), encoding="utf-8")
    return {split: _write_split(folder, split, examples, fingerprint, num_proc) for split in SPLITS}


def _write_split(
    folder: Path, split: Split, examples: Examples, fingerprint: str, num_proc: int
) -> dict[str, int]:
    shards = [[shard] for shard in sorted((folder / "dialogues").glob(f"{split}-*.jsonl"))] or [[]]
    names = [f"data-{number:05}-of-{len(shards):05}.arrow" for number in range(len(shards))]
    pairs = [(shard, folder / split / name) for shard, name in zip(shards, names, strict=True)]
    counts: Counter[str] = Counter()
    (folder / split).mkdir()
    with tqdm(desc=f"examples of {split}", unit=" examples", disable=None) as progress:
        for counted in in_order(partial(_write, examples), pairs, min(num_proc, len(pairs))):
            counts.update(counted)
            progress.update(counted.total())
    DatasetInfo(features=FEATURES).write_to_directory(str(folder / split))
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": f"{fingerprint}-{split}",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    (folder / split / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    return dict(counts)


def _write(examples: Examples, paths: tuple[Sequence[Path], Path]) -> Counter[str]:
    """Write the examples of a file of dialogues, or of none, and count them by source."""
    shards, target = paths
    counts: Counter[str] = Counter()
    with ArrowWriter(features=FEATURES, path=str(target), writer_batch_size=1000) as writer:
        for example in (example for shard in shards for example in examples(shard)):
            writer.write(example)
            counts[example["source"]] += 1
        writer.finalize()
    return counts
