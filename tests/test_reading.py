"""The blind reading sheet: fair to both, kept after each answer, and scored by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_helpers import BYTES, NEVER, Chatbot, sample_dialogues, sample_tokenizer, write_dialogues
from modeling_helpers import tiny_model
from playwright.sync_api import sync_playwright

from chatbot.checkpoints import save_chatbot
from chatbot.data import is_test, prepare
from chatbot.decoding import generate_replies
from chatbot.presets import generation_preset
from chatbot.reading import (
    Preference,
    load_sheet,
    make_sheet,
    preference,
    read_sheet,
    save_sheet,
    write_page,
)
from chatbot.tokenization import load_tokenizers


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared dialogues, seven of them to test on."""
    folder = tmp_path_factory.mktemp("data")
    held_out = [messages for messages in sample_dialogues() if is_test(messages)][:7]
    learned = [messages for messages in sample_dialogues() if not is_test(messages)][:4]
    source = write_dialogues(folder / "mine.jsonl", [*held_out, *learned])
    prepare([source], folder / "prepared", tokenizer=sample_tokenizer())
    return folder / "prepared"


@pytest.fixture(scope="module")
def names(tiny_chatbot_folder: Path) -> list[str]:
    return [f"{tiny_chatbot_folder}@{preset}" for preset in ("lively", "greedy")]


@pytest.fixture
def sheet(names: list[str], data: Path) -> list[dict[str, Any]]:
    return make_sheet(names, data)


def answering(*answers: str) -> Callable[[str], str]:
    given = iter(answers)
    return lambda _: next(given)


def line(whose: list[int], answer: str | None) -> dict[str, Any]:
    replies = [f"said by {whose[0]}", f"said by {whose[1]}"]
    messages = [{"role": "user", "content": "hi"}]
    fixed = {"names": ["a", "b"], "messages": messages, "replies": replies}
    return {**fixed, "whose": whose, "answer": answer}


def test_a_sheet_holds_replies_of_both_in_random_order(
    sheet: list[dict[str, Any]], names: list[str], data: Path, tiny_chatbot: Chatbot
) -> None:
    first_messages = {each["messages"][0]["content"] for each in sheet}
    assert len(sheet) == len(first_messages) == 7  # each of another dialogue, all there are
    again = make_sheet(names, data)
    assert again == sheet
    swapped = make_sheet(names[::-1], data)
    for one, other in zip(sheet, swapped, strict=True):
        assert one["messages"] == other["messages"]
        assert one["messages"][-1]["role"] == "user"
        own = dict(zip(one["whose"], one["replies"], strict=True))
        theirs = dict(zip(other["whose"], other["replies"], strict=True))
        assert (own[0], own[1]) == (theirs[1], theirs[0])
    assert {tuple(each["whose"]) for each in sheet} == {(0, 1), (1, 0)}
    contexts = [each["messages"] for each in sheet]
    greedy = generate_replies(*tiny_chatbot, contexts, generation_preset("greedy"))
    assert [each["replies"][each["whose"].index(1)] for each in sheet] == greedy
    assert make_sheet(names, data, seed=1) != sheet
    assert len(make_sheet(names, data, count=2)) == 2


def test_translations_are_read_in_their_own_vocabulary(tmp_path: Path) -> None:
    sides = [["il gatto dorme", "stai attento"], ["the cat is asleep", "be careful"]]
    for name, side in zip(("a.it", "a.en"), sides, strict=True):
        (tmp_path / name).write_text("\n".join(side * 3), "utf-8")
    pairs = f"{tmp_path / 'a.it'}+{tmp_path / 'a.en'}"
    prepare([pairs], tmp_path / "data", vocab_size=280, clean={"duplicates": False})
    source, target = load_tokenizers(tmp_path / "data/tokenizer")
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 2}
    model = tiny_model(vocab_size=280, share_embeddings=False, **ids)
    with torch.no_grad():
        model.lm_head.bias[BYTES] = NEVER  # bytes are the same in both
    save_chatbot(model, source, tmp_path / "model", target_tokenizer=target)
    names = [f"{tmp_path / 'model'}@{preset}" for preset in ("greedy", "lively")]
    sheet = make_sheet(names, tmp_path / "data", split="train", seed=3)
    contexts = [line["messages"] for line in sheet]
    assert {messages[0]["content"] for messages in contexts} == {*sides[0]}
    for place, preset in enumerate(map(generation_preset, ("greedy", "lively"))):
        written = {"seed": 3, "target_tokenizer": target}
        replies = generate_replies(model, source, contexts, preset, **written)
        assert [line["replies"][line["whose"].index(place)] for line in sheet] == replies
        assert replies != generate_replies(model, source, contexts, preset, seed=3)


def test_equal_replies_need_no_reader(names: list[str], data: Path, tmp_path: Path) -> None:
    sheet = make_sheet([names[1]] * 2, data)
    assert {each["answer"] for each in sheet} == {"="}
    read_sheet(sheet, tmp_path / "sheet.jsonl", answering())  # asks nothing
    assert str(preference(sheet)).endswith("0% of 0, interval 0% to 100%; level and not counted: 7")


def test_reading_goes_on_where_it_stopped(
    sheet: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sheet.jsonl"
    save_sheet(sheet, file)
    read_sheet(load_sheet(file), file, answering("1", "nonsense", "", "=", "q"))
    assert [each["answer"] for each in load_sheet(file)][:3] == ["1", "=", None]
    shown = capsys.readouterr().out
    for each in sheet[:3]:
        assert f"1: {each['replies'][0]}\n2: {each['replies'][1]}\n" in shown
        assert f"user: {each['messages'][-1]['content']}\n" in shown
    assert sheet[3]["replies"][0] not in shown
    assert "lively" not in shown  # blind
    assert "greedy" not in shown

    with pytest.raises(EOFError):  # the terminal is closed after one more answer
        read_sheet(load_sheet(file), file, ends_after("2"))
    read_sheet(load_sheet(file), file, answering(*"1111"))
    assert [each["answer"] for each in load_sheet(file)] == [*"1=2", *"1111"]
    assert "1 of 7" not in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.jsonl"]


def ends_after(*answers: str) -> Callable[[str], str]:
    given = list(answers)

    def ask(_: str) -> str:
        if not given:
            raise EOFError
        return given.pop(0)

    return ask


def test_a_preference_by_hand() -> None:
    sheet = [
        line([0, 1], "1"),  # a
        line([1, 0], "2"),  # a
        line([1, 0], "1"),  # b
        line([0, 1], "1"),  # a
        line([0, 1], "="),
        line([0, 1], None),
    ]
    found = preference(sheet)
    assert found == Preference(["a", "b"], [3, 1], 1)
    # Wilson's interval of 3 of 4, as in his paper: 0.301 to 0.954
    assert found.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)
    expected = "a preferred to b: 75% of 4, interval 30% to 95%; level and not counted: 1"
    assert str(found) == expected


@pytest.mark.parametrize(
    ("wins", "interval"),
    [
        ([0, 10], (0, 0.2775)),
        ([10, 0], (0.7225, 1)),
        ([50, 50], (0.4038, 0.5962)),
        ([0, 0], (0, 1)),
    ],
)
def test_intervals_by_hand(wins: list[int], interval: tuple[float, float]) -> None:
    assert Preference(["a", "b"], wins, 0).interval == pytest.approx(interval, abs=1e-4)


@pytest.mark.parametrize("text", ["", "hello\n", "[1]\n", '{"names": ["a"]}\n', "{broken\n"])
def test_what_is_no_sheet_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sheet.jsonl"
    file.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"sheet\.jsonl is no sheet of `chatbot read`"):
        load_sheet(file)


def test_what_cannot_be_read_is_refused(names: list[str], data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"count=0 of 7 dialogues; both min\. 1"):
        make_sheet(names, data, count=0)
    with pytest.raises(ValueError, match="'loud' is unknown; allowed: lively"):
        make_sheet([names[0], f"{names[0].rpartition('@')[0]}@loud"], data)
    with pytest.raises(FileNotFoundError, match="nowhere: no such model folder"):
        make_sheet([names[0], "nowhere@lively"], data)
    with pytest.raises(FileNotFoundError, match="not a folder of `chatbot prepare`"):
        make_sheet(names, tmp_path)


def test_a_page_holds_the_sheet_as_text(tmp_path: Path) -> None:
    hostile = "</script><b>bold</b>\u2028"
    sheet = [line([0, 1], None), line([1, 0], None)]
    sheet[1]["replies"][0] = hostile
    write_page(sheet, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<b>bold" not in page
    assert page.count("</script>") == 1
    assert page.count("<fieldset>") == 2
    data = page.partition("const sheet = ")[2].partition(";\n")[0]
    assert json.loads(data) == sheet


@pytest.mark.browser
def test_a_page_saves_the_answers(chromium: str, tmp_path: Path) -> None:
    sheet = [line([0, 1], None), line([1, 0], "="), line([1, 0], None), line([0, 1], None)]
    write_page(sheet, tmp_path / "page.html")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator("legend").all_inner_texts() == ["1 of 4", "3 of 4", "4 of 4"]
        page.get_by_label("said by 0").nth(0).check()
        page.get_by_label("said by 0").nth(1).check()
        with page.expect_download() as saved:
            page.get_by_role("button").click()
        saved.value.save_as(tmp_path / "answers.jsonl")
        browser.close()
    answers = load_sheet(tmp_path / "answers.jsonl")
    assert [each["answer"] for each in answers] == ["1", "=", "2", None]
    assert preference(answers) == Preference(["a", "b"], [2, 0], 1)
