"""Dialogues between two people are learned from both sides."""

import json
from pathlib import Path

import pytest

from chatbot.data import DataError, load_prepared, prepare
from chatbot.data.preparation import dialogue_shards
from chatbot.data.splits import dialogue_digest, split_of

SAID = [
    "Do you like tea?",
    "My name is Ann, and yes.",
    "Green tea?",
    "Only black.",
    "I live in Rome.",
]


def write(path: Path, dialogues: list[list[str]]) -> None:
    lines = [
        {
            "messages": [
                {"role": "assistant" if n % 2 else "user", "content": text}
                for n, text in enumerate(texts)
            ]
        }
        for texts in dialogues
    ]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty dialogues of two people, and one with a bot."""
    write(tmp_path / "people.jsonl", [[*SAID, f"Since when, {n}?"] for n in range(60)])
    write(tmp_path / "bot.jsonl", [["Who are you?", "A bot.", "Really?", "Really."]])
    return tmp_path


def prepared(folder: Path, **clean: object) -> dict[str, list[dict[str, object]]]:
    """The examples of `people`, by split."""
    everything = {"near_duplicates": False, "leaks": False, **clean}
    prepare(
        [folder / "people.jsonl", folder / "bot.jsonl"],
        folder / "out",
        clean=everything,
        overwrite=True,
    )
    splits = load_prepared(folder / "out")
    return {
        split: [row for row in rows if row["source"] == "people"] for split, rows in splits.items()
    }


def test_each_answers_the_other(folder: Path) -> None:
    examples = prepared(folder, both_sides=["people"], mute=["my name", "i live"])
    train = examples["train"]
    # of the bot's side "My name ..." is muted, of the other "I live ..." and nothing said before
    sides = {(row["turn"], row["reply"][:6]) for row in train}
    assert sides == {(3, "Only b"), (5, "Since "), (2, "Green ")}
    records = [
        json.loads(line) for s in dialogue_shards(folder / "out", "train") for line in s.open()
    ]
    assert [record["dialogue"] for record in records] == [*range(len(records))]
    people = [record for record in records if record["source"] == "people"]
    for mine, theirs in zip(people[::2], people[1::2], strict=True):
        assert [m["content"] for m in mine["messages"]] == [
            m["content"] for m in theirs["messages"]
        ]
        assert [m["role"] for m in mine["messages"]] == ["user", "assistant"] * 3
        assert [m["role"] for m in theirs["messages"]] == ["assistant", "user"] * 3
        assert (mine["muted"], theirs["muted"]) == ([1], [4])
    assert sum(record["source"] == "bot" for record in records) == 1
    steps = json.loads((folder / "out/preparation.json").read_text("utf-8"))["steps"]
    assert steps["both_sides"]["count"] == len(people) / 2


def test_held_out_dialogues_stay_as_they_are(folder: Path) -> None:
    plain, both = prepared(folder), prepared(folder, both_sides=["people"])
    for split in ("validation", "test"):
        assert [row["reply"] for row in both[split]] == [row["reply"] for row in plain[split]]
    assert len(both["train"]) == len(plain["train"]) / 3 * 5  # turns 1, 3, 5, and now 2, 4


def test_the_other_side_is_in_the_same_split(folder: Path) -> None:
    prepared(folder, both_sides=["people"])
    for split in ("train", "validation", "test"):
        for shard in dialogue_shards(folder / "out", split):
            for record in map(json.loads, shard.open()):
                assert split_of(dialogue_digest(record["messages"])) == split


def test_sources_that_are_not_there_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"both_sides='poeple': allowed are bot, people"):
        prepared(folder, both_sides=["poeple"])
    assert not (folder / "out").exists()


def test_pairs_have_no_other_side(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"clean\.both_sides: allowed with task chat"):
        prepare(
            [folder / "people.jsonl"],
            folder / "no",
            task="seq2seq",
            clean={"both_sides": ["people"]},
        )
