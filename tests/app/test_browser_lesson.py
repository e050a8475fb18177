"""The page "How it works" in a real Chromium: what a teacher does, and what the class sees."""

import gc
from typing import Any

import gradio as gr
import pytest
from browser_helpers import (
    HOST,
    PHONE,
    MakeBot,
    Visit,
    button,
    free_port,
    picture,
    texts_within,
)
from playwright.sync_api import Locator, Page, expect
from transformers import PreTrainedTokenizerFast
from waiting import wait_until

from chatbot.app import strings
from chatbot.app.conversation import Bot
from chatbot.app.launch import start
from chatbot.app.lesson import Subject, lesson_numbers
from chatbot.app.page import build_page

pytestmark = pytest.mark.browser

WORDS = strings.LESSON
SENTENCE, REPLY, _ = strings.LESSON_EXAMPLES[0]


def lesson(visit: Visit, *address: str, **options: Any) -> Page:
    """Opens the chat and follows its link; an example is shown at once."""
    tab = visit(*address, **options)
    tab.get_by_role("link", name=strings.HOW_IT_WORKS).click()
    expect(title(tab)).to_have_text(part("words"))
    return tab


def title(tab: Page) -> Locator:
    return tab.locator("#lesson h2")


def part(name: str) -> str:
    return strings.LESSON_PARTS[name][0]


def go(tab: Page, name: str) -> None:
    button(tab, part(name)).click()
    expect(title(tab)).to_have_text(part(name))


def tiles(tab: Page) -> Locator:
    return tab.get_by_role("list", name=WORDS["reads"]).get_by_role("button")


def written(tab: Page) -> Locator:
    return tab.get_by_role("list", name=WORDS["writes"]).get_by_role("button")


def figures(tab: Page) -> list[float]:
    """The numbers on what is read."""
    texts = tiles(tab).locator(".figure").all_inner_texts()
    return [float(text.replace("−", "-")) for text in texts]


def numbers(bot: Bot, **asked: Any) -> dict[str, Any]:
    subject = Subject(bot.model, bot.tokenizer, bot.tokenizer)
    return lesson_numbers({"Looks": subject}, {"model": "Looks", "text": SENTENCE, **asked})


def test_each_step_shows_the_models_numbers(visit: Visit, bot: Bot) -> None:
    tab, found = lesson(visit), numbers(bot, reply=REPLY)
    first = found["steps"][0]
    expect(tiles(tab)).to_have_count(len(found["source"]))
    assert figures(tab) == [one["id"] for one in found["source"]]
    seen = []
    for _ in range(7):
        tab.keyboard.press("ArrowRight")
        seen.append(title(tab).inner_text())
        if seen[-1] == part("scores"):
            assert figures(tab) == [round(score, 2) for score in first["scores"]]
        if seen[-1] == part("softmax"):
            assert figures(tab) == pytest.approx(first["weights"], abs=0.00501)
        if seen[-1] == part("context"):
            shown = tab.locator("#lesson .numbers .strip").get_attribute("aria-label") or ""
            values = [float(v.replace("−", "-")) for v in shown.split(": ")[1].split()]
            assert values == pytest.approx(first["context"], abs=0.00501)
    names = ["encoder", "fixed", "decoder", "scores", "softmax", "context", "word"]
    assert seen == [part(name) for name in names]
    bars = tab.locator("#lesson .bars li")
    expect(bars).to_have_count(len(first["likeliest"]))
    expect(tab.locator("#lesson .bars .chosen")).to_have_count(1)
    said = [one["word"].strip() or "␣" for one in found["reply"]]
    expect(written(tab).locator(".word")).to_have_text(["<go>", *said])

    button(tab, WORDS["back"]).click()
    expect(title(tab)).to_have_text(part("context"))
    button(tab, WORDS["next"]).press("ArrowRight")
    expect(tab.locator("#lesson .current .word")).to_have_text(said[0])
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#lesson .current .word")).to_have_text(said[1])
    go(tab, "whole")
    expect(tab.locator("#lesson tbody tr")).to_have_count(len(found["reply"]))
    expect(button(tab, WORDS["next"])).to_be_disabled()
    tab.keyboard.press("Home")
    expect(title(tab)).to_have_text(part("words"))
    picture(tab, "lesson")


def test_a_weight_is_changed_and_attention_turned_off(visit: Visit, bot: Bot) -> None:
    tab, before = lesson(visit), numbers(bot, reply=REPLY)["steps"][0]
    slider = tab.get_by_role("slider")
    expect(slider).to_be_disabled()
    go(tab, "softmax")
    tiles(tab).nth(3).click()
    expect(tiles(tab).nth(3)).to_have_attribute("aria-pressed", "true")
    expect(slider).to_have_value(f"{before['weights'][3]:.2f}".rstrip("0").rstrip("."))
    slider.fill("0.9")
    expect(tiles(tab).nth(3).locator(".figure")).to_have_text("0.90")
    change = {"step": 0, "position": 3, "weight": 0.9}
    after = numbers(bot, reply=REPLY, change=change)["changed"][0]
    assert figures(tab) == pytest.approx(after["weights"], abs=0.00501)
    go(tab, "word")
    expect(tab.locator("#lesson .bars small")).to_have_count(len(after["likeliest"]))
    expect(tab.locator("#lesson .bars .word")).to_have_text(
        [word.strip() or "␣" for word, _, _ in after["likeliest"]]
    )
    picture(tab, "lesson-weight")
    button(tab, WORDS["undo"]).click()
    expect(tab.locator("#lesson .bars small")).to_have_count(0)
    go(tab, "softmax")
    assert figures(tab) == pytest.approx(before["weights"], abs=0.00501)

    go(tab, "context")
    box = tab.get_by_label(WORDS["off"])
    box.check()
    expect(tab.get_by_text(WORDS["off_said"])).to_be_visible()
    expect(tab.locator("#lesson .numbers .strip b").first).to_have_text("0.00")
    assert figures(tab) == [0.0] * tiles(tab).count()
    found = numbers(bot, reply=REPLY, change={"off": True})
    expect(tab.get_by_text(found["own_changed"])).to_be_visible()
    expect(tab.get_by_role("slider")).to_be_disabled()
    go(tab, "word")
    picture(tab, "lesson-off")
    box.uncheck()
    expect(tab.get_by_text(WORDS["off_said"])).to_have_count(0)


def test_ones_own_sentence_and_the_models_own_reply(visit: Visit, bot: Bot) -> None:
    tab = lesson(visit)
    nasty = '<img src=x onerror="alert(1)"> {own}'
    tab.get_by_label(WORDS["own"]).check()
    tab.get_by_label(WORDS["sentence"], exact=True).fill(nasty)
    tab.get_by_label(WORDS["sentence"], exact=True).press("Enter")
    found = numbers(bot, text=nasty)
    expect(tiles(tab).locator(".word")).to_have_text(
        [one["word"].strip() or "␣" for one in found["source"]]
    )
    expect(tab.locator("#lesson img")).to_have_count(0)
    expect(written(tab).locator(".word").nth(1)).to_have_text("?")  # it has not been said yet
    go(tab, "word")
    said = found["reply"][0]["word"].strip() or "␣"
    expect(written(tab).locator(".word").nth(1)).to_have_text(said)
    expect(tab.locator("#lesson .chosen .word")).to_have_text(said)

    tab.get_by_label(WORDS["sentence"], exact=True).fill("many " * 60)
    button(tab, WORDS["start"]).click()
    expect(tab.get_by_role("alert")).to_contain_text("allowed here: 40")
    tab.keyboard.press("ArrowLeft")  # a button has the focus: a step back
    expect(title(tab)).to_have_text(part("context"))
    tab.get_by_label(WORDS["sentence"], exact=True).press("ArrowLeft")  # within the text
    expect(title(tab)).to_have_text(part("context"))


def test_a_model_without_attention_and_what_the_server_keeps(
    visit: Visit, served: gr.Blocks
) -> None:
    tab = lesson(visit)
    tab.get_by_label(WORDS["model"], exact=True).select_option("Does not")
    expect(button(tab, part("scores"))).to_have_count(0)
    go(tab, "fixed")
    expect(tab.get_by_text(WORDS["none"])).to_be_visible()
    expect(tab.get_by_text(WORDS["try"])).to_be_hidden()
    go(tab, "whole")
    expect(tab.get_by_text(WORDS["none"])).to_be_visible()
    expect(tab.get_by_text(strings.LESSON_NO_TRANSLATOR)).to_be_visible()

    def kept(word: str) -> bool:
        gc.collect()
        return any(word in text for text in texts_within(served, served.app))

    tab.get_by_label(WORDS["sentence"], exact=True).fill("a pelican")
    button(tab, WORDS["start"]).click()
    expect(tiles(tab).locator(".word").nth(-3)).to_have_text("n")
    assert kept(WORDS["about"])  # what is there is found
    wait_until(lambda: not kept("pelican"))


def test_a_translator_is_looked_into_where_there_is_one(
    visit: Visit, bot: Bot, make_bot: MakeBot
) -> None:
    both = make_bot(attention="additive", share_embeddings=False)
    reading = PreTrainedTokenizerFast(tokenizer_object=bot.tokenizer.backend_tokenizer)
    reading.eos_token = "<end>"  # and no chat template
    translator = Subject(both.model, reading, bot.tokenizer)
    page = build_page({"Looks": bot}, secret="x", translators={"it-en": translator})
    tab = lesson(visit, start(page, HOST, free_port()))
    expect(tab.get_by_text(strings.LESSON_NO_TRANSLATOR)).to_have_count(0)
    button(tab, strings.LESSON_TRANSLATIONS[0][0]).click()
    expect(tab.get_by_label(WORDS["model"], exact=True)).to_have_value("it-en")
    expect(tiles(tab).locator(".word").last).to_have_text("<end>")
    expect(tiles(tab).get_by_text("<user>")).to_have_count(0)
    seen = []
    for _ in range(7):
        tab.keyboard.press("ArrowRight")
        seen.append(title(tab).inner_text())
    order = ["encoder", "fixed", "scores", "softmax", "context", "decoder", "word"]
    assert seen == [part(name) for name in order]
    button(tab, SENTENCE).click()
    expect(tab.get_by_label(WORDS["model"], exact=True)).to_have_value("Looks")
    page.close(verbose=False)


def test_a_phone_shows_every_step_in_its_width(visit: Visit) -> None:
    tab = lesson(visit, viewport=PHONE, color_scheme="dark", has_touch=True)
    for name in strings.LESSON_PARTS:
        go(tab, name)
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        if name in ("context", "word", "whole"):
            picture(tab, f"lesson-phone-{name}")
