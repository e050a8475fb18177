"""The files of the examples, as `datasets` reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, NamedSplit, load_from_disk

from chatbot.data.example_files import FEATURES, write_examples


def examples(shard: Path) -> Iterator[dict[str, Any]]:
    """One for each line: other processes call this by its name."""
    for number, line in enumerate(shard.read_text("utf-8").split()):
        yield {
            "input_ids": [len(line), 7],
            "labels": [number],
            "reply": line,
            "dialogue": number,
            "turn": 1,
            "source": line[0],
        }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files of train, of which one has no example, and one of test."""
    texts = {
        "train-0": "ann bob",
        "train-1": "",
        "train-2": "amy",
        "train-3": "cleo",
        "test-0": "x",
    }
    (tmp_path / "dialogues").mkdir()
    for name, text in texts.items():
        (tmp_path / f"dialogues/{name}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("num_proc", [1, 3])
def test_they_are_what_datasets_would_have_written(folder: Path, num_proc: int) -> None:
    counts = write_examples(folder, examples, "made of this", num_proc)
    assert counts == {"train": {"a": 2, "b": 1, "c": 1}, "validation": {}, "test": {"x": 1}}
    loaded = load_from_disk(str(folder))
    assert isinstance(loaded, DatasetDict)
    assert {name: split["reply"][:] for name, split in loaded.items()} == {
        "train": ["ann", "bob", "amy", "cleo"],
        "validation": [],
        "test": ["x"],
    }
    for name, split in loaded.items():
        rows: dict[str, list[Any]] = {column: split[column][:] for column in FEATURES}
        theirs = Dataset.from_dict(rows, features=FEATURES, split=NamedSplit(name))
        theirs.save_to_disk(folder / f"theirs-{name}", num_shards=1)
        again = load_from_disk(str(folder / f"theirs-{name}"))
        assert (split.features, split.split, split.format) == (
            again.features,
            again.split,
            again.format,
        )
        assert split.to_list() == again.to_list()
        assert {p.name for p in (folder / name).iterdir()} >= {"state.json", "dataset_info.json"}


def test_what_is_computed_from_them_depends_on_what_they_are_made_of(folder: Path) -> None:
    """`datasets` keeps results by fingerprint."""
    write_examples(folder, examples, "this", 1)
    prints = [
        {split: loaded._fingerprint for split, loaded in load_from_disk(str(folder)).items()}
        for _ in range(2)
    ]
    assert prints[0] == prints[1]
    assert len(set(prints[0].values())) == 3
    state = folder / "train/state.json"
    state.write_text(state.read_text("utf-8").replace("this-train", "that-train"), "utf-8")
    assert load_from_disk(str(folder))["train"]._fingerprint != prints[0]["train"]


def test_an_error_in_an_example_is_told(folder: Path) -> None:
    (folder / "dialogues/train-2.jsonl").unlink()
    (folder / "dialogues/train-2.jsonl").mkdir()  # no text can be read from it
    with pytest.raises(IsADirectoryError):
        write_examples(folder, examples, "this", 2)
