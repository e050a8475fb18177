"""The rules that keep our sample conversations varied, and our own."""

import gzip
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from chat_helpers import sample_dialogues

from chatbot.data import Message, clean_dialogue, find_files, normalized_text, read_dialogues
from chatbot.data.splits import dialogue_digest, split_of
from chatbot.hub_files import hub_config_path

Trigram = tuple[str, str, str]

# Examples of the two articles that the project grew from: never in data of ours.
FORBIDDEN = [
    "which sport do you like the most",
    "i love cricket",
    "stai attento thomas",
    "be careful thomas",
]
DIALOGUES = sample_dialogues()
REPLIES = [
    message["content"] for turns in DIALOGUES for message in turns if message["role"] == "assistant"
]


def words(text: str) -> list[str]:
    return normalized_text([Message(role="user", content=text)]).split()


def trigrams(turns: Iterable[str]) -> set[Trigram]:
    """All runs of three words within a turn."""
    found: set[Trigram] = set()
    for turn in turns:
        said = words(turn)
        found.update(zip(said, said[1:], said[2:], strict=False))
    return found


OURS = [trigrams(message["content"] for message in turns) for turns in DIALOGUES]


def holders(sets: list[set[Trigram]]) -> dict[Trigram, list[int]]:
    """The numbers of the sets that hold a trigram."""
    index: dict[Trigram, list[int]] = defaultdict(list)
    for number, grams in enumerate(sets):
        for gram in grams:
            index[gram].append(number)
    return index


def test_there_are_enough_of_the_right_length() -> None:
    assert len(DIALOGUES) >= 400
    assert {len(turns) for turns in DIALOGUES} <= set(range(4, 13))


def test_records_are_canonical() -> None:
    for file in find_files(hub_config_path("sample_conversations")):
        for line, text in enumerate(file.path.read_text("utf-8").splitlines(), start=1):
            where = f"{file.path.name}:{line}"
            record = json.loads(text)
            assert record.keys() == {"messages", "source"}, where
            assert record["source"] == "sample-conversations", where
            assert all(message.keys() == {"role", "content"} for message in record["messages"])
            roles = [message["role"] for message in record["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2), where
            assert clean_dialogue(record["messages"]) == record["messages"], where


def test_no_junk_is_in_the_texts() -> None:
    for turns in DIALOGUES:
        for message in turns:
            text = message["content"]
            assert not re.search(r"[^\x20-\x7eéèêçñïüö£€°½…–—‘’“”]", text), text
            assert not re.search(r"  |<\w+>|\{|\}|\[|\]|https?:|\bTODO\b", text), text


def test_no_two_share_half_of_their_trigrams() -> None:
    """Half of those of the smaller one."""
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in holders(OURS).values():
        shared.update((a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :])
    alike = [
        (DIALOGUES[a][0]["content"], DIALOGUES[b][0]["content"])
        for (a, b), count in shared.items()
        if 2 * count >= min(len(OURS[a]), len(OURS[b]))
    ]
    assert alike == []


def test_replies_are_distinct() -> None:
    distinct = {tuple(words(reply)) for reply in REPLIES}
    assert len(distinct) >= 0.9 * len(REPLIES)


def test_replies_begin_differently() -> None:
    openings = Counter(tuple(words(reply)[:3]) for reply in REPLIES)
    opening, count = openings.most_common(1)[0]
    assert count <= 0.03 * len(REPLIES), opening


def test_the_examples_of_the_articles_are_not_in_our_data() -> None:
    for path in sorted(hub_config_path().rglob("*")):
        if path.is_file() and path.suffix in {".jsonl", ".md", ".txt", ".yaml"}:
            text = " ".join(words(path.read_text("utf-8")))
            assert [sentence for sentence in FORBIDDEN if sentence in text] == [], path


def test_the_readme_counts_right() -> None:
    folder = hub_config_path("sample_conversations")
    readme = (folder / "README.md").read_text("utf-8")
    messages = sum(len(turns) for turns in DIALOGUES)
    assert f"\n{len(DIALOGUES):,} short English dialogues" in readme
    assert f": {messages:,} messages, half of them\n" in readme
    for file in find_files(folder):
        count = len(list(read_dialogues(file.path)))
        assert f"| `{file.path.name}` | {count} |" in readme
    lengths = [len(reply.split()) for reply in REPLIES]
    assert f"{sum(lengths) / len(lengths):.0f} words on average and at most {max(lengths)}." in (
        readme.replace("\n", " ")
    )
    splits = Counter(split_of(dialogue_digest(turns)) for turns in DIALOGUES)
    assert (
        f"{splits['train']:,} dialogues to train on, {splits['validation']} for validation and "
        f"{splits['test']} for test."
    ) in readme


@pytest.fixture(scope="module")
def public_dialogues() -> list[list[str]]:
    """The turns of every dialogue under CHATBOT_DATA, lines of plain text as one of one turn."""
    folder = os.environ.get("CHATBOT_DATA")
    if not folder:
        pytest.skip("CHATBOT_DATA does not name the folder of the public conversations")
    return list(_read_public(Path(folder)))


def _read_public(folder: Path) -> Iterator[list[str]]:
    found = False
    for path in sorted(folder.rglob("*")):
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            for _, record in read_dialogues(path):
                yield [message["content"] for message in record["messages"]]
                found = True
        elif path.name.endswith(".en.gz"):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                yield from ([line] for line in lines)
    assert found, f"{folder} holds no conversations"


def test_no_dialogue_is_taken_from_public_ones(public_dialogues: list[list[str]]) -> None:
    """None shares half of its trigrams with one of theirs."""
    index = holders(OURS)
    known = set(index)
    taken = []
    for turns in public_dialogues:
        shared = Counter(number for gram in trigrams(turns) & known for number in index[gram])
        taken += [
            (DIALOGUES[number][0]["content"], turns[0])
            for number, count in shared.items()
            if 2 * count >= len(OURS[number])
        ]
    assert taken == []


def test_no_reply_is_taken_from_public_ones(public_dialogues: list[list[str]]) -> None:
    """None of six words or more stands there."""
    ours = {" ".join(words(reply)) for reply in REPLIES if len(words(reply)) >= 6}
    theirs = {" ".join(words(turn)) for turns in public_dialogues for turn in turns}
    assert ours & theirs == set()
