"""scripts/make_memories.py: what it asks is what was told, and nothing of the tests."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_helpers import sample_dialogues

from chatbot.data import clean_dialogue, split_of
from chatbot.data.splits import dialogue_digest

TESTS = ("recall", "wordings", "untold")


@pytest.fixture(scope="module")
def script(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / "scripts" / "make_memories.py"))


@pytest.fixture(scope="module")
def made(script: dict[str, Any]) -> list[dict[str, Any]]:
    return list(script["make"](400, 1, 100, 0))


@pytest.fixture(scope="module")
def lists(script: dict[str, Any]) -> dict[str, Any]:
    return yaml.safe_load(script["LISTS"].read_text("utf-8"))


@pytest.fixture(scope="module")
def tests(repository: Path) -> dict[str, list[dict[str, Any]]]:
    """The dialogues of each test of memory."""
    folder = repository / "scripts" / "talk"
    return {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in TESTS
    }


def maker(script: dict[str, Any], lists: dict[str, Any], seed: int = 0) -> Any:
    about = yaml.safe_load(script["ABOUT"].read_text("utf-8"))["topics"]
    return script["Maker"](lists, about, sample_dialogues()[:60], seed)


def words(text: str) -> str:
    return f" {re.sub(r'[^a-z0-9]+', ' ', text.lower()).strip()} "


def said(records: list[dict[str, Any]]) -> Iterator[str]:
    """Every text, as words."""
    yield from (words(message["content"]) for each in records for message in each["messages"])


def test_one_seed_makes_the_same(script: dict[str, Any], made: list[dict[str, Any]]) -> None:
    assert list(script["make"](400, 1, 100, 0)) == made
    assert list(script["make"](5, 0, 0, 1)) != made[:5]


def test_records_are_canonical_and_to_be_trained_on(made: list[dict[str, Any]]) -> None:
    assert {record["source"] for record in made} == {"memories", "renamed-conversations", "medleys"}
    for record in made:
        messages = record["messages"]
        assert [each["role"] for each in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert clean_dialogue(messages) == messages
        assert split_of(dialogue_digest(messages)) == "train"
        assert not re.search(r"[{}]", " ".join(each["content"] for each in messages))


def test_an_answer_says_what_was_told_or_that_nothing_was(
    script: dict[str, Any], lists: dict[str, Any]
) -> None:
    """A quarter of the first questions has no answer; after the user tells it, it has."""
    draw = maker(script, lists)
    untold = 0
    for _ in range(400):
        asked, told = draw._facts()
        value = told.get(asked)
        untold += value is None
        answer = words(draw._answer(asked, value))
        whole = words(draw._question(asked)) + answer
        assert words(asked[1]).strip() in whole or not asked[1] or value is None
        if value is not None:
            assert words(value) in answer
            assert words(value) in words(" ".join(draw._told(asked, value)))
        else:
            assert all(words(other) not in answer for other in told.values())
    assert 70 <= untold <= 130


def test_a_dialogue_tells_before_it_asks(
    script: dict[str, Any], lists: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it did not, the user may tell it then, and asks again."""
    draw, asked = maker(script, lists), ("pet", "dog")
    monkeypatch.setattr(draw, "_facts", lambda: (asked, {("name", ""): "Abo", asked: "Zeb"}))
    for _ in range(20):
        *before, answer = map(words, draw.memory())
        assert " zeb " in answer
        assert any(" zeb " in text for text in before[:-1:2])
        assert " zeb " not in before[-1]
    monkeypatch.setattr(draw, "_facts", lambda: (asked, {("name", ""): "Zeb"}))
    monkeypatch.setattr(draw, "_value", lambda _: "Mox")
    again = 0
    for _ in range(20):
        *_, question, answer = map(words, turns := draw.memory())
        assert " zeb " not in answer
        again += " mox " in answer
        assert any(" mox " in words(text) for text in turns[:-2:2]) == (" mox " in answer)
        assert " mox " not in question
    assert 4 <= again <= 16


def test_what_is_not_told_is_in_no_talk_before(
    script: dict[str, Any], lists: dict[str, Any]
) -> None:
    draw = maker(script, lists)
    names = {n for group in script["EXCHANGED"] for n in lists["values"][group]}
    assert len(draw.beginnings) > 20
    for turns in draw.beginnings:
        assert not names & set(re.findall(r"\w+", " ".join(turns)))
        assert len(turns) % 2 == 0


def test_a_medley_is_of_openings_that_stand_alone(
    script: dict[str, Any], lists: dict[str, Any]
) -> None:
    draw, starts = maker(script, lists), [turns[0]["content"] for turns in sample_dialogues()[:60]]
    answers = {answer for topic in draw.about for answer in topic["answered"]}
    for _ in range(50):
        turns = draw.medley()
        assert len(turns) % 2 == 0
        openings = [text for text in turns[::2] if text in starts]
        last = turns[-2]
        assert turns[-1] in answers or (last in openings and not script["MINE"].search(last))
        exchanges = draw._exchanges(5)
        assert len(exchanges) == 10
        assert len({*exchanges[::2]}) == 5


def test_an_interlude_stands_in_public_talk(script: dict[str, Any], lists: dict[str, Any]) -> None:
    draw = maker(script, lists)
    public = [f"{word} {turn}" for turn in range(8) for word in ("Q", "A")]
    turns = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant") * 8, public, strict=True)
    ]
    went_on = 0
    for _ in range(60):
        whole = draw.interlude(turns)
        assert len(whole) % 2 == 0
        kept = [text for text in whole if text in public]
        assert kept == public[: len(kept)]
        new = [text for text in whole if text not in public]
        assert len(new) in (2, 4, 6)
        start = whole.index(new[0])
        assert whole[start : start + len(new)] == new
        went_on += start + len(new) < len(whole)
    assert 10 <= went_on <= 50


def test_the_public_talk_is_none_that_is_held_out(script: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    talks = [[f"what about {n}", f"well, {n}", "and?", "so."] for n in range(200)]
    turns = [
        [
            {"role": role, "content": text}
            for role, text in zip(("user", "assistant") * 2, talk, strict=True)
        ]
        for talk in talks
    ]
    file.write_text("".join(f"{json.dumps({'messages': each})}\n" for each in turns))
    held_out = {each[0]["content"] for each in turns if split_of(dialogue_digest(each)) == "test"}
    made = list(script["make"](0, 0, 0, 0, [file], 200))
    first = {record["messages"][0]["content"] for record in made}
    assert {record["source"] for record in made} == {"interludes"}
    assert held_out
    assert not held_out & first
    assert len(first) > 150


def test_what_is_asked_about_wren_is_no_question_of_the_tests(
    script: dict[str, Any], repository: Path
) -> None:
    topics = yaml.safe_load(script["ABOUT"].read_text("utf-8"))["topics"]
    asked = {words(text) for topic in topics for text in topic["asked"]}
    folder = repository / "scripts"
    prompts = (folder / "prompts.txt").read_text("utf-8").splitlines()
    identity = (folder / "talk/identity.jsonl").read_text("utf-8").splitlines()
    assert not asked & {*map(words, prompts)}
    assert not asked & {words(json.loads(line)["question"]) for line in identity}
    assert all(len(topic["asked"]) >= 7 and len(topic["answered"]) >= 4 for topic in topics)


def test_names_change_alike_and_nothing_else_does(
    script: dict[str, Any], lists: dict[str, Any]
) -> None:
    texts = [
        "My dog Biscuit met Ingrid. Pepper?",
        "Ingrid and biscuit?",
        "ingrid is",
        "Ok.",
    ]
    turns = [{"role": "user", "content": text} for text in texts]
    new = maker(script, lists).renamed(turns)
    match = re.fullmatch(r"My dog (\w+) met (\w+)\. Pepper\?", new[0])
    assert match
    pet, woman = match.groups()
    assert pet in lists["values"]["pet"]
    assert pet != "Biscuit"
    assert woman in lists["values"]["woman"]
    assert woman != "Ingrid"
    assert new[1:] == [f"{woman} and {pet.lower()}?", f"{woman.lower()} is", "Ok."]
    assert maker(script, lists).renamed(turns[3:]) == []


def test_the_lists_are_varied(lists: dict[str, Any]) -> None:
    for name, values in lists["values"].items():
        assert len(values) == len(set(values)) >= 25, name
    for name, kind in lists["kinds"].items():
        assert len(set(kind["tell"])) >= 8, name
        assert len(set(kind["ask"])) >= 8, name
        assert all(text.count("{}") == 1 for text in [*kind["tell"], *kind["answer"]]), name


def test_no_value_of_the_tests_is_ever_said(
    tests: dict[str, Any], lists: dict[str, Any], made: list[dict[str, Any]]
) -> None:
    """Neither in what is made nor in our conversations."""
    values = {words(row["value"]) for name in ("recall", "wordings") for row in tests[name]}
    listed = {words(value) for group in lists["values"].values() for value in group}
    assert not values & listed
    own = [{"messages": turns} for turns in sample_dialogues()]
    everything = "".join(said([*made, *own]))
    assert [value for value in values if value in everything] == []


def test_no_wording_apart_is_ever_used(
    tests: dict[str, Any], lists: dict[str, Any], made: list[dict[str, Any]]
) -> None:
    """No question, and no statement without its value, of wordings.jsonl and untold.jsonl."""
    apart = [*tests["wordings"], *tests["untold"]]
    asked = {words(row["messages"][-1]["content"]) for row in apart}
    told = {
        words(row["messages"][0]["content"].replace(row["value"], "{}"))
        for row in tests["wordings"]
    }
    texts = [
        words(text.format("{}", who=who))
        for kind in lists["kinds"].values()
        for text in [*kind["tell"], *kind["ask"]]
        for who in kind.get("who", [""])
    ]
    assert not (asked | told) & set(texts)
    assert not asked & set(said(made))
    own = [{"messages": turns} for turns in sample_dialogues()]
    assert [text for text in said(own) if len(text.split()) > 3 and text in asked | told] == []


def test_the_tests_are_as_many_as_they_say(tests: dict[str, Any]) -> None:
    assert [len(tests[name]) for name in TESTS] == [200, 100, 68]
    assert {row["turns"] for row in tests["recall"]} == {1, 3, 5}
    for row in [*tests["recall"], *tests["wordings"]]:
        *before, question = (words(each["content"]) for each in row["messages"])
        assert words(row["value"]) in before[0]
        assert words(row["value"]) not in question
        assert len(row["messages"]) == 2 * row["turns"] + 1
    questions = [words(row["messages"][-1]["content"]) for row in tests["wordings"]]
    assert len(set(questions)) == 100
