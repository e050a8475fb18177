"""Datasets of the Hub: `hub:owner/name[:config][:split]`, or a local folder in owner/name's place.

Without a split all are read, each as what it is called. One name after the dataset is a split if
it is called like one, else a config; `hub:owner/name::train_sft` names a split of any name.
"""

from collections.abc import Iterator
from typing import Any, Literal

from datasets import get_dataset_split_names, load_dataset

from chatbot.data.records import DataError

# What splits are called, and which of ours each is.
SPLITS: dict[str, Literal["train", "validation", "test"]] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}


def parse(spec: str) -> tuple[str, str | None, str | None]:
    """Dataset, config and split of a source."""
    name, *rest = spec.removeprefix("hub:").split(":")
    if len(rest) == 1 and rest[0] in SPLITS:
        rest = ["", *rest]
    if not name or len(rest) > 2:
        raise DataError(f"{spec}: not a dataset; allowed: hub:owner/name[:config][:split]")
    config, split = [*rest, "", ""][:2]
    return name, config or None, split or None


def splits(spec: str) -> list[str]:
    """The same source once for each split that is to be read."""
    name, config, split = parse(spec)
    try:
        names = [split] if split else get_dataset_split_names(name, config)
    except (OSError, ValueError) as error:
        raise DataError(f"{spec}: {error}") from error
    return [f"hub:{name}:{config or ''}:{each}" for each in names]


def rows(spec: str, streaming: bool) -> Iterator[dict[str, Any]]:
    """The records of one split."""
    name, config, split = parse(spec)
    try:
        yield from load_dataset(name, config, split=split, streaming=streaming)
    except (OSError, ValueError) as error:
        raise DataError(f"{spec}: {error}") from error
