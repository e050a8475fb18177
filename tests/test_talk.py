"""scripts/talk.py: how replies count, on texts of the tests' own; a few of the shipped model."""

import json
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

Talk = list[dict[str, str]]


@pytest.fixture(scope="module")
def path(repository: Path) -> Path:
    return repository / "scripts" / "talk.py"


@pytest.fixture(scope="module")
def talk(path: Path) -> dict[str, Any]:
    return runpy.run_path(str(path))


def user(*texts: str) -> Talk:
    return [{"role": "user", "content": text} for text in texts]


@pytest.mark.parametrize(
    ("reply", "value", "right"),
    [
        ("You're Kjersti!", "Kjersti", True),
        ("you said unblock the sink.", "unblock the sink", True),
        ("The sink, unblock it?", "unblock the sink", False),
        ("Tamara, I think.", "Tamar", False),
        ("", "Tamar", False),
    ],
)
def test_recall_is_the_words_side_by_side(
    talk: dict[str, Any], reply: str, value: str, right: bool
) -> None:
    assert talk["recalls"](reply, value) is right


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("I don't know that yet. What is it?", True),
        ("I do not know.", True),
        ("You haven't told me your name.", True),
        ("I don't think you've told me. Will you?", True),
        ("You never said.", True),
        ("Not yet! Where do you live?", True),
        ("No idea, you kept that to yourself.", True),
        ("I can't remember.", True),
        ("I'm not sure.", True),
        ("Your name is Anna.", False),
        ("I know! You told me it's Rex.", False),
        ("Tell me more.", False),
        ("Why don't you tell me a story?", False),
        ("It's not Rex.", False),
        ("I said so.", False),
    ],
)
def test_not_knowing_is_said(talk: dict[str, Any], reply: str, right: bool) -> None:
    assert talk["admits"](reply) is right


def test_all_answers_to_the_untold_that_are_taught_count(
    talk: dict[str, Any], repository: Path
) -> None:
    import yaml

    lists = yaml.safe_load((repository / "scripts/talk/memories.yaml").read_text("utf-8"))
    taught = [text.format(what="your name", back="What is it?") for text in lists["untold"]]
    assert [text for text in taught if not talk["admits"](text)] == []


def test_one_voice_has_an_accepted_phrase_and_no_refused_one(talk: dict[str, Any]) -> None:
    accepted, refused = ["wren", "a program"], ["a person"]
    assert talk["in_voice"]("I'm Wren.", accepted, refused)
    assert talk["in_voice"]("Just a program!", accepted, refused)
    assert not talk["in_voice"]("Wren, and a person.", accepted, refused)
    assert not talk["in_voice"]("Programs are fun.", accepted, refused)


def test_recall_is_counted_by_turns(talk: dict[str, Any]) -> None:
    rows = [
        {"messages": user("I'm Ama.", "Who am I?"), "value": value, "turns": turns}
        for value, turns in [("Ama", 1), ("Ama", 1), ("Bo", 3), ("Ama", 3)]
    ]
    heard: list[Talk] = []

    def answer(talks: Sequence[Talk]) -> list[str]:
        heard.extend(talks)
        return ["Ama."] * len(talks)

    found = talk["measure_memory"](answer, rows, rows[2:])
    assert [name for name in found] == [
        "recall after 1",
        "recall after 3",
        "recall in other wordings",
    ]
    assert [text.split()[0] for text in found.values()] == ["100.0%", "50.0%", "50.0%"]
    assert found["recall after 1"].endswith("[100.0%, 100.0%] of 2")
    assert heard[0] == rows[0]["messages"]


def test_the_voice_is_asked_at_every_second_turn(talk: dict[str, Any]) -> None:
    """Half of the questions get a wrong answer, so no chat of five questions is whole."""
    questions = [
        {"question": f"question {n}", "accepted": ["even"], "refused": []} for n in range(10)
    ]
    lengths: set[int] = set()

    def answer(talks: Sequence[Talk]) -> list[str]:
        lengths.update(len(each) for each in talks)
        replies = []
        for each in talks:
            number = re.fullmatch(r"question (\d)", each[-1]["content"])
            assert (number is not None) == (len(each) % 4 == 3)
            replies.append("even" if number and int(number[1]) % 2 == 0 else "odd")
        return replies

    found = talk["measure_voice"](answer, questions, ["prompt"], 40)
    assert lengths == set(range(1, 20, 2))
    share, whole = (float(text.split("%")[0]) for text in found.values())
    assert 35 <= share <= 65
    assert whole < 20
    assert found["one voice, answers"].endswith("of 40")  # chats, whose answers hang together
    again = talk["measure_voice"](lambda talks: ["even"] * len(talks), questions, ["prompt"], 3)
    assert [text.split()[0] for text in again.values()] == ["100.0%", "100.0%"]


def test_variety_by_hand(talk: dict[str, Any]) -> None:
    replies = ["I like tea.", "i like tea", "so so so so", "Yes."]
    assert talk["measure_variety"](replies) == {
        "unique replies": "0.750",
        "commonest ten": "1.000",
        "distinct-2": "0.429",  # i like, like tea, so so; of seven
        "with a repeated trigram": "1",
        "words a reply": "2.8",
    }


def test_a_sheet_hides_who_said_what_and_is_summed_up(talk: dict[str, Any]) -> None:
    prompts = [f"prompt {n}" for n in range(20)]
    replies = {name: [f"{name} to {prompt}" for prompt in prompts] for name in ("a", "b")}
    (head, *rows), key = talk["blind_sheet"](replies, prompts)
    assert head["rubric"].startswith("0: ")
    assert [row["id"] for row in rows] == list(range(40))
    assert {tuple(row) for row in rows} == {("id", "prompt", "reply", "rating")}
    assert len({key[str(n)] for n in range(6)}) == 2  # not one after the other
    for row in rows:
        name = key[str(row["id"])]
        assert row["reply"] == f"{name} to {row['prompt']}"
        row["rating"] = 2 if name == "a" else int(row["prompt"][7:]) % 2
    found = talk["sum_ratings"]([head, *rows], key)
    assert found["a, mean"] == "2.00  [2.00, 2.00]"
    assert found["b, mean"].startswith("0.50  [0.")
    assert found["b, 0 / 1 / 2"] == "10 / 10 / 0"
    assert found["b, rated 0"].split()[0] == "50.0%"
    rows[3]["rating"] = None
    with pytest.raises(ValueError, match="rating of 3 is None; allowed: 0, 1, 2"):
        talk["sum_ratings"]([head, *rows], key)


def test_the_questions_about_itself_are_ours(talk: dict[str, Any]) -> None:
    """What Wren says in our own conversations counts where the very question is asked."""
    from chat_helpers import sample_dialogues

    rows = talk["read"](talk["FOLDER"] / "identity.jsonl")
    assert len({row["question"] for row in rows}) == len(rows) >= 20
    known = {talk["spoken"](row["question"]): row for row in rows}
    judged = [
        talk["in_voice"](reply["content"], row["accepted"], row["refused"])
        for turns in sample_dialogues()
        for asked, reply in zip(turns[::2], turns[1::2], strict=True)
        if (row := known.get(talk["spoken"](asked["content"])))
    ]
    assert len(judged) >= 5
    assert all(judged)


def test_the_shipped_model_on_a_few(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["talk.py", "--limit", "6", "--chats", "1"])
    runpy.run_path(str(path), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:28].strip() for line in lines] == [
        "recall after 1",
        "recall after 3",
        "recall after 5",
        "recall in other wordings",
        "says it was not told",
        "one voice, answers",
        "one voice, whole chats",
    ]
    sheet = tmp_path / "sheet.jsonl"
    rows = [{"rubric": ""}, {"id": 0, "prompt": "hi", "reply": "hello", "rating": 1}]
    sheet.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "sheet.key.json").write_text('{"0": "lively"}')
    monkeypatch.setattr(sys, "argv", ["talk.py", "--ratings", str(sheet)])
    runpy.run_path(str(path), run_name="__main__")
    assert "lively, mean                1.00" in capsys.readouterr().out
