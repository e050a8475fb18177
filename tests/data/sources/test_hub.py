"""Datasets as on the Hub: here folders of the same form, and a stand-in for the download."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from source_helpers import read

from chatbot.data import DataError
from chatbot.data.sources import SourceOptions, find_sources, hub

PAIRS = {"question": ["hi", "bye"], "answer": ["hello", "see you"], "mark": [1, 2]}


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of Parquet files: what a dataset repository holds."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        rows = Dataset.from_dict(PAIRS)
        rows.to_parquet(str(tmp_path / f"talk/{split}.parquet"))
    return f"hub:{tmp_path}/talk"


@pytest.mark.parametrize("streaming", [True, False])
def test_each_split_is_what_it_is_called(dataset: str, streaming: bool) -> None:
    options = SourceOptions(streaming=streaming)
    files = find_sources([dataset], options)
    assert [(file.split, file.source, file.format) for file in files] == [
        ("train", "talk", "table"),
        ("test", "talk", "table"),
    ]
    assert [file.files for file in files] == [(), ()]
    told = ["u: hi | b: hello", "u: bye | b: see you"]
    assert read(f"{dataset}:test", streaming=streaming) == told


def test_columns_are_named_and_sources_weighed(dataset: str) -> None:
    (file,) = find_sources([f"{dataset}:test:0.5"])
    assert file.weight == 0.5
    columns = {"context": "answer", "reply": "question"}
    assert read(f"{dataset}:train", columns=columns)[0] == "u: hello | b: hi"


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("hub:ann/talk", ("ann/talk", None, None)),
        ("hub:ann/talk:train", ("ann/talk", None, "train")),
        ("hub:ann/talk:short", ("ann/talk", "short", None)),
        ("hub:ann/talk:short:dev", ("ann/talk", "short", "dev")),
        ("hub:ann/talk::train_sft", ("ann/talk", None, "train_sft")),
    ],
)
def test_the_parts_of_a_name(spec: str, parsed: tuple[str, str | None, str | None]) -> None:
    assert hub.parse(spec) == parsed


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(name: str, config: str | None, *, split: str, streaming: bool) -> list[dict[str, Any]]:
        asked.append((name, config, split, streaming))
        return [{"prompt": "hi", "completion": split}]

    monkeypatch.setattr(hub, "load_dataset", load)
    monkeypatch.setattr(hub, "get_dataset_split_names", lambda name, config: ["train", "dev"])
    files = find_sources(["hub:ann/talk:short"])
    assert [file.split for file in files] == ["train", "validation"]
    assert read("hub:ann/talk:short", streaming=False) == ["u: hi | b: train", "u: hi | b: dev"]
    assert asked[-1] == ("ann/talk", "short", "dev", False)


@pytest.mark.parametrize("spec", ["hub:", "hub:ann/talk:a:b:c"])
def test_what_is_no_name_is_refused(spec: str) -> None:
    with pytest.raises(DataError, match=r"not a dataset; allowed: hub:owner/name\[:config\]\[:spl"):
        find_sources([spec])


def test_a_dataset_without_that_split_is_refused(dataset: str) -> None:
    with pytest.raises(DataError, match="dev"):
        read(f"{dataset}:dev")


def test_a_hub_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(hub, "get_dataset_split_names", fail)
    with pytest.raises(DataError, match="hub:ann/talk: Couldn't reach the Hub"):
        find_sources(["hub:ann/talk"])
