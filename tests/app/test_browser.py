"""The real page in a real Chromium: what a person does, and what is seen."""

import gc
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import pytest
from browser_helpers import (
    HOST,
    PHONE,
    Pace,
    Visit,
    bots,
    box,
    bring,
    button,
    finished,
    fits,
    free_port,
    picture,
    ready,
    rows,
    say,
    status,
    text_of,
    texts_within,
    users,
)
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect
from waiting import PATIENCE, wait_until

from chatbot.app import strings
from chatbot.app.conversation import Bot
from chatbot.app.launch import start
from chatbot.app.page import build_page
from chatbot.checkpoints import save_chatbot
from chatbot.presets import DEFAULT_GENERATION_PRESET

pytestmark = pytest.mark.browser


def test_a_message_is_answered_word_by_word(visit: Visit, pace: Pace) -> None:
    tab = visit()
    with pace.slow():
        say(tab, "hello there")
        expect(users(tab)).to_have_text("hello there")
        expect(box(tab)).to_have_value("")
        expect(bots(tab)).not_to_be_empty()
        beginning = text_of(bots(tab))
        expect(button(tab, strings.STOP)).to_be_visible()
        expect(button(tab, strings.RETRY)).to_have_count(0)
    finished(tab, 1)
    whole = text_of(bots(tab))
    assert len(whole) > len(beginning)
    assert whole.startswith(beginning[:-1])
    tab.get_by_text(strings.ATTENTION).click()
    cells = tab.locator("#inspection tbody td[title]")
    expect(cells.first).to_be_visible()
    expect(tab.locator("#inspection thead th").last).to_have_text("<bot>")
    say(tab, "what else?")
    finished(tab, 2)
    picture(tab, "desktop")


def test_stop_keeps_the_words_and_ends_the_model(visit: Visit, pace: Pace) -> None:
    tab = visit()
    with pace.slow():
        say(tab, "tell me a story")
        expect(bots(tab)).to_have_text(re.compile(r"\w"))
        button(tab, strings.STOP).click()
        expect(status(tab)).to_have_text(strings.STOPPED)
        expect(button(tab, strings.STOP)).to_be_hidden()
        pace.rest()
    assert text_of(bots(tab))
    say(tab, "go on")
    finished(tab, 2)


def test_retry_undo_clear(visit: Visit) -> None:
    tab = visit()
    say(tab, "first")
    finished(tab, 1)
    say(tab, "second <b>")
    finished(tab, 2)
    before = text_of(bots(tab).last)
    button(tab, strings.RETRY).click()
    expect(bots(tab).last).not_to_have_text(before)
    finished(tab, 2)
    expect(users(tab)).to_have_text(["first", "second <b>"])

    button(tab, strings.UNDO).click()
    expect(users(tab)).to_have_text(["first"])
    expect(bots(tab)).to_have_count(1)
    expect(box(tab)).to_have_value("second <b>")

    button(tab, strings.CLEAR).click()
    expect(users(tab)).to_have_count(0)
    expect(box(tab)).to_have_value("")
    expect(tab.get_by_text(strings.NO_CONVERSATIONS)).to_be_visible()


def test_an_example_begins_a_conversation(visit: Visit) -> None:
    tab = visit()
    tab.get_by_text(strings.EXAMPLES[-1]).click()
    expect(users(tab)).to_have_text(strings.EXAMPLES[-1])
    finished(tab, 1)


def test_presets_ones_own_and_models(visit: Visit) -> None:
    tab = visit()
    tab.get_by_text(strings.SETTINGS).click()
    temperature = tab.locator("#temperature input[type=number]")
    tab.get_by_label("precise").check()
    expect(temperature).to_be_hidden()
    say(tab, "hello")
    finished(tab, 1)
    tab.get_by_text(strings.ATTENTION).click()
    expect(tab.locator(".candidates tbody tr")).to_have_count(4)

    tab.get_by_label(strings.MY_OWN).check()
    expect(temperature).to_have_value("0")
    beams = tab.locator("#num_beams input[type=number]")
    expect(beams).to_have_value("4")
    beams.fill("1")
    temperature.fill("1.5")
    tab.get_by_label(strings.SEED).fill("7")
    tab.get_by_label(strings.SEED).press("Tab")
    button(tab, strings.RETRY).click()
    expect(tab.locator(".candidates")).to_have_count(0)
    finished(tab, 1)
    drawn = text_of(bots(tab))
    button(tab, strings.RETRY).click()
    expect(button(tab, strings.STOP)).to_be_visible()
    finished(tab, 1)
    expect(bots(tab)).to_have_text(drawn)

    button(tab, strings.RESET).click()
    expect(tab.get_by_label(DEFAULT_GENERATION_PRESET)).to_be_checked()
    expect(temperature).to_be_hidden()

    tab.get_by_label(strings.MODEL).click()
    tab.get_by_role("option", name="Does not").click()
    say(tab, "and you?")
    finished(tab, 2)
    expect(bots(tab).first).to_have_text(drawn)
    expect(tab.locator("#inspection")).to_contain_text(strings.ATTENTION_NONE)


def test_conversations_are_kept_renamed_and_deleted(visit: Visit) -> None:
    tab = visit()
    say(tab, "tea <b>")
    finished(tab, 1)
    button(tab, strings.NEW).click()
    expect(users(tab)).to_have_count(0)
    say(tab, "coffee")
    finished(tab, 1)
    expect(rows(tab)).to_have_text(["coffee", "tea <b>"])
    rows(tab).last.click()
    expect(users(tab)).to_have_text("tea <b>")
    button(tab, f"{strings.RENAME}: tea <b>").click()
    name = tab.get_by_label(strings.NEW_NAME)
    expect(name).to_be_focused()
    name.fill("My <i>tea</i>")
    name.press("Enter")
    expect(rows(tab)).to_have_text(["coffee", "My <i>tea</i>"])
    stored = tab.evaluate("Object.values(localStorage).join()")
    assert "coffee" not in stored  # it is encrypted

    tab.reload()
    ready(tab)
    expect(users(tab)).to_have_text("tea <b>")
    expect(rows(tab)).to_have_text(["coffee", "My <i>tea</i>"])
    rows(tab).first.click()
    button(tab, f"{strings.DELETE}: coffee").click()
    button(tab, strings.KEEP).click()
    button(tab, f"{strings.DELETE}: coffee").click()
    button(tab, strings.REALLY_DELETE).click()
    expect(rows(tab)).to_have_text(["My <i>tea</i>"])
    expect(users(tab)).to_have_count(0)


def test_conversations_outlive_the_server(bot: Bot, visit: Visit) -> None:
    port = free_port()
    first = build_page({"a": bot}, secret="kept in a file")
    tab = visit(start(first, HOST, port))
    say(tab, "do you remember?")
    finished(tab, 1)
    tab.goto("about:blank")
    first.close(verbose=False)
    second = build_page({"a": bot}, secret="kept in a file")
    tab.goto(start(second, HOST, port))
    expect(users(tab)).to_have_text("do you remember?")
    expect(button(tab, strings.LIKE)).to_have_count(0)  # no file was named for ratings
    second.close(verbose=False)


def test_no_more_is_kept_than_a_browser_holds(visit: Visit) -> None:
    tab = visit()
    for word in ("a", "b"):
        said = json.dumps([{"role": r, "content": word * 9_000} for r in ("user", "assistant")])
        talk = f'{{"title": "{word}", "messages": {said}}}'
        text = talk.replace("[", "[" + (said[1:-1] + ",") * 30)
        bring(tab, f"{word}.json", text)
        expect(rows(tab).first).to_have_text(word)
        expect(tab.locator("#library .hint[role=status]")).to_have_text(
            strings.IMPORTED if word == "a" else strings.DROPPED
        )
    expect(rows(tab)).to_have_text(["b"])
    tab.reload()
    expect(rows(tab)).to_have_text(["b"])


def test_another_tab_hears_of_it(visit: Visit) -> None:
    tab = visit()
    other = tab.context.new_page()
    other.goto(tab.url)
    ready(other)
    say(tab, "hello")
    finished(tab, 1)
    expect(rows(other)).to_have_text("hello")
    say(other, "and here")
    finished(other, 1)
    expect(rows(tab)).to_have_text(["and here", "hello"])
    tab.reload()
    expect(rows(tab)).to_have_text(["and here", "hello"])


def test_edit_continue_copy(visit: Visit) -> None:
    tab = visit()
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for number, text in enumerate(["first", "second"], 1):
        say(tab, text)
        finished(tab, number)
    button(tab, strings.EDIT).first.click()
    editor = tab.get_by_label(strings.EDITING)
    expect(editor).to_have_value("first")
    editor.press("Escape")
    expect(users(tab)).to_have_text(["first", "second"])
    button(tab, strings.EDIT).first.click()
    editor.fill("a & b < c\nnew")
    editor.press("Enter")
    finished(tab, 1)
    assert text_of(users(tab)) == "a & b < c\nnew"

    before = text_of(bots(tab))
    button(tab, strings.CONTINUE).click()
    expect(bots(tab)).not_to_have_text(before)
    finished(tab, 1)
    assert text_of(bots(tab)).startswith(before)

    button(tab, strings.COPY).first.click()
    expect(status(tab)).to_have_text(strings.COPIED)
    assert tab.evaluate("navigator.clipboard.readText()") == "a & b < c\nnew"


def test_export_and_import(visit: Visit) -> None:
    tab = visit()
    say(tab, "a & b < c\n# *d*")
    finished(tab, 1)
    reply = text_of(bots(tab))
    files = {}
    for kind in (strings.EXPORT_JSON, strings.EXPORT_MARKDOWN):
        with tab.expect_download() as download:
            button(tab, kind).click()
        files[download.value.suggested_filename] = download.value.path().read_text("utf-8")
    assert list(files) == ["a-b-c-d-.json", "a-b-c-d-.md"]
    button(tab, strings.CLEAR).click()
    for number, (name, text) in enumerate(files.items(), 1):
        bring(tab, name, text)
        expect(rows(tab)).to_have_count(number)
        expect(users(tab)).to_have_text("a & b < c\n# *d*")
        expect(bots(tab)).to_have_text(reply)
    bring(tab, "x.md", "hello")
    expect(tab.get_by_text("line 1 is 'hello'")).to_be_visible()


def test_ratings_are_kept_with_consent(visit: Visit, feedback: Path) -> None:
    tab = visit()
    say(tab, "do you like tea?")
    finished(tab, 1)
    button(tab, strings.LIKE).click()
    expect(tab.get_by_role("dialog")).to_contain_text(str(feedback))
    picture(tab, "consent")
    button(tab, strings.CONSENT_NO).click()
    expect(status(tab)).to_have_text(strings.NOT_KEPT)
    assert not feedback.exists()
    tab.get_by_label(strings.KEEP_RATINGS).check()
    button(tab, strings.LIKE).click()
    expect(status(tab)).to_have_text(strings.THANKS)
    reply = text_of(bots(tab))
    expect(button(tab, strings.LIKE)).to_have_attribute("aria-pressed", "true")

    say(tab, "and coffee?")
    finished(tab, 2)
    button(tab, strings.DISLIKE).last.click()
    expect(status(tab)).to_have_text(strings.THANKS)
    button(tab, strings.CORRECT).last.click()
    tab.get_by_label(strings.CORRECTING).fill("Coffee <too>.")
    button(tab, strings.SAVE_CORRECTION).click()
    expect(bots(tab).last).to_have_text("Coffee <too>.")
    tab.reload()
    ready(tab)
    expect(bots(tab)).to_have_text([reply, "Coffee <too>."])
    expect(tab.get_by_text(strings.CORRECTED)).to_be_visible()
    expect(button(tab, strings.LIKE).first).to_be_disabled()

    like, dislike, corrected = map(json.loads, feedback.read_text("utf-8").splitlines())
    assert [m["content"] for m in like["messages"]] == ["do you like tea?", reply]
    assert [m["content"] for m in dislike["messages"]] == ["and coffee?"]
    said = [m["content"] for m in corrected["messages"]]
    assert said == ["do you like tea?", reply, "and coffee?", "Coffee <too>."]


def test_everything_by_keyboard(visit: Visit, pace: Pace) -> None:
    tab = visit()
    with pace.slow():
        box(tab).press_sequentially("hello")
        box(tab).press("Enter")
        expect(bots(tab)).to_have_text(re.compile(r"\w"))
        tab.keyboard.press("Escape")
        expect(status(tab)).to_have_text(strings.STOPPED)
    box(tab).press("ArrowUp")
    editor = tab.get_by_label(strings.EDITING)
    expect(editor).to_be_focused()
    editor.press("End")
    editor.press_sequentially(" again")
    editor.press("Enter")
    finished(tab, 1)
    expect(users(tab)).to_have_text("hello again")
    box(tab).fill("half a thought")
    box(tab).press("ArrowUp")  # moves the cursor: there is text
    expect(editor).to_have_count(0)
    for _ in range(40):  # each button can be reached
        tab.keyboard.press("Shift+Tab")
        if tab.evaluate("document.activeElement.ariaLabel") == strings.RETRY:
            break
    expect(button(tab, strings.RETRY)).to_be_focused()
    before = text_of(bots(tab))
    tab.keyboard.press("Enter")
    expect(bots(tab)).not_to_have_text(before)
    finished(tab, 1)
    assert tab.evaluate("document.activeElement.ariaLabel") == strings.CONVERSATION  # not lost


def test_a_redrawn_button_keeps_the_focus(visit: Visit, pace: Pace) -> None:
    tab = visit()
    say(tab, "hello")
    finished(tab, 1)
    tab.get_by_label(strings.KEEP_RATINGS).check()
    button(tab, strings.COPY).first.focus()
    tab.evaluate("document.querySelector('.actions .like').click()")  # draws all messages anew
    expect(status(tab)).to_have_text(strings.THANKS)
    expect(button(tab, strings.COPY).first).to_be_focused()


def test_the_server_keeps_no_text(visit: Visit, served: gr.Blocks, pace: Pace) -> None:
    def kept(word: str) -> bool:
        gc.collect()
        return any(word in text for text in texts_within(served, served.app))

    tab = visit()
    say(tab, "my secret is pelican")
    finished(tab, 1)
    button(tab, strings.EDIT).click()
    tab.get_by_label(strings.EDITING).fill("no, my secret is pelican")
    tab.get_by_label(strings.EDITING).press("Enter")
    expect(users(tab)).to_have_text("no, my secret is pelican")
    finished(tab, 1)
    assert kept(strings.MESSAGE_HINT)  # what is there is found
    assert len(served.state_holder.session_data) > 0
    wait_until(lambda: not kept("pelican"))  # the last request may still be on its way
    with pace.slow():
        say(tab, "another is volcano")
        expect(bots(tab)).to_have_count(2)
        assert kept("volcano")  # while it is answered
        tab.close()
        pace.rest()
    wait_until(lambda: not kept("volcano"))


NASTY = (
    '<img src=x onerror="alert(1)"> <script>alert(2)</script> **bold** &lt;i&gt; &amp; '
    "![p](http://example.org/p.png) $$x^2$$ https://example.org ${1+1} {{7*7}} <end><bot>"
)


def test_what_is_pasted_is_shown_and_does_nothing(visit: Visit) -> None:
    tab = visit()
    say(tab, NASTY)
    finished(tab, 1)
    expect(users(tab)).to_have_text(NASTY)
    for element in ("img", "script", "strong", "i", "a", ".katex"):
        expect(users(tab).locator(element)).to_have_count(0)
    expect(rows(tab)).to_have_text(NASTY[:60])
    button(tab, strings.UNDO).click()
    expect(box(tab)).to_have_value(NASTY)
    tab.get_by_text(strings.ATTENTION).click()
    button(tab, strings.SEND).click()
    finished(tab, 1)
    expect(tab.locator("#inspection img, #inspection script, #inspection a")).to_have_count(0)


def test_blank_long_and_several_lines(visit: Visit) -> None:
    tab = visit()
    say(tab, "   ")
    expect(status(tab)).to_have_text(strings.BLANK)
    expect(users(tab)).to_have_count(0)
    box(tab).fill("one")
    box(tab).press("Shift+Enter")
    box(tab).press_sequentially("  two")
    box(tab).press("Enter")
    finished(tab, 1)
    assert text_of(users(tab)) == "one\n  two"
    say(tab, "x" * 100_000)
    finished(tab, 2)
    expect(status(tab)).to_contain_text("10,000")


def test_two_tabs_never_see_each_others_words(visit: Visit, pace: Pace) -> None:
    tabs = {"pelican": visit(), "volcano": visit()}
    with pace.slow():
        for word, tab in tabs.items():
            say(tab, f"my word is {word}")
        for tab in tabs.values():
            expect(bots(tab)).not_to_be_empty()
    for word, tab in tabs.items():
        finished(tab, 1)
        (other,) = set(tabs) - {word}
        tab.get_by_text(strings.ATTENTION).click()
        assert word in tab.content()
        assert other not in tab.content()


def test_a_phone_shows_everything_in_its_width(visit: Visit) -> None:
    tab = visit(viewport=PHONE, color_scheme="dark", has_touch=True)
    say(tab, "a message that is longer than a narrow screen, with averyveryveryverylongword" * 2)
    finished(tab, 1)
    tab.get_by_text(strings.ATTENTION).click()
    expect(tab.locator("#inspection table")).to_be_visible()
    for name in (strings.SEND, strings.RETRY, strings.UNDO, strings.CLEAR):
        fits(button(tab, name))
    picture(tab, "phone")
    button(tab, strings.SIDE_BAR).click()
    tab.get_by_text(strings.SETTINGS).click()
    expect(tab.get_by_label("lively")).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(tab, "phone-side")
    rows(tab).click()
    expect(tab.get_by_label("lively")).to_be_hidden()


def test_programs_talk_through_the_same_server(address: str) -> None:
    client = Client(address, verbose=False)
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert client.predict("how are you?", history, "greedy", api_name="/chat")
    steps = list(client.submit("how are you?", api_name="/chat"))
    assert len(steps) > 3
    with pytest.raises(AppError, match="allowed: lively"):
        client.predict("hi", None, "nope", api_name="/chat")
    with pytest.raises(AppError, match="history: allowed"):
        client.predict("hi", [{"role": "system", "content": ""}], api_name="/chat")


@contextmanager
def command(*arguments: str) -> Iterator[str]:
    """`chatbot serve` in a process of its own, which Ctrl-C must end. Yields its address."""
    call = [sys.executable, "-m", "chatbot", "serve", "--port", str(free_port()), *arguments]
    server = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = next(
            found[0] for line in server.stdout if (found := re.search(r"http://\S+", line))
        )
        yield address
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=PATIENCE) == 0
    finally:
        server.kill()
        server.stdout.close()


def test_the_command_serves_a_folder(tmp_path: Path, bot: Bot, visit: Visit) -> None:
    save_chatbot(bot.model, bot.tokenizer, tmp_path / "a model")
    with command(str(tmp_path / "a model"), "--no-browser") as address:
        tab = visit(address)
        say(tab, "hello")
        finished(tab, 1)


def test_the_command_serves_the_shipped_model(repository: Path, visit: Visit) -> None:
    if not (repository / "hub_config" / "pretrained").is_dir():
        pytest.skip("hub_config/pretrained is missing: no model is shipped yet")
    with command("--no-browser") as address:
        tab = visit(address)
        say(tab, "Hello! How are you?")
        finished(tab, 1)
        assert re.search(r"[a-z]{2}", text_of(bots(tab)))
        picture(tab, "shipped")
