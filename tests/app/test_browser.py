"""The real page in a real Chromium: what a person does, and what is seen.

`CHATBOT_SCREENSHOTS=folder` keeps pictures of the page.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Browser, BrowserContext, Dialog, Locator, Page, expect
from playwright.sync_api import sync_playwright as playwright

from chatbot.app import strings
from chatbot.app.conversation import Bot
from chatbot.app.launch import start
from chatbot.app.page import build_page
from chatbot.checkpoints import save_chatbot
from chatbot.presets import generation_preset

pytestmark = pytest.mark.browser

HOST = "127.0.0.1"
DESKTOP = {"width": 1100, "height": 860}
PHONE = {"width": 390, "height": 844}
# Seconds that one step may take: nothing waits longer than it must, but a machine may be busy
PATIENCE = float(os.environ.get("CHATBOT_TEST_PATIENCE", "60"))
STEP_SECONDS = 0.4  # of a slow model: there is time to stop a reply of 48 tokens
Visit = Callable[..., Page]


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


class Pace:
    """Makes a model slow while `slow()` lasts, and counts its steps."""

    def __init__(self, bot: Bot) -> None:
        self.steps = 0
        self._slow = False
        bot.model.model.decoder.register_forward_pre_hook(self._wait)

    def _wait(self, *_: object) -> None:
        self.steps += 1
        if self._slow:
            threading.Event().wait(STEP_SECONDS)

    @contextmanager
    def slow(self) -> Iterator[None]:
        self._slow = True
        try:
            yield
        finally:
            self._slow = False


@pytest.fixture(scope="module")
def pace(bot: Bot) -> Pace:
    return Pace(bot)


@pytest.fixture(scope="module")
def address(bot: Bot, pace: Pace) -> Iterator[str]:
    page = build_page(bot.model, bot.tokenizer)
    yield start(page, HOST, free_port())
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Opens the page in a tab of its own; afterwards all tabs have been quiet and local."""
    contexts: list[BrowserContext] = []
    trouble: list[str] = []

    def refuse(dialog: Dialog) -> None:
        trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def look(url: str) -> None:
        if not url.startswith(("data:", "blob:")) and f"//{HOST}:" not in url:
            trouble.append(f"request to another host: {url}")

    def open_tab(url: str = address, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(1_000 * PATIENCE)
        tab.on("dialog", refuse)
        tab.on("request", lambda request: look(request.url))
        tab.on("websocket", lambda websocket: look(websocket.url))
        tab.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        tab.goto(url)
        expect(box(tab)).to_be_visible()
        return tab

    expect.set_options(timeout=1_000 * PATIENCE)
    yield open_tab
    for context in contexts:
        context.close()
    assert trouble == []


def box(tab: Page) -> Locator:
    return tab.get_by_label(strings.MESSAGE, exact=True)


def button(tab: Page, name: str) -> Locator:
    return tab.get_by_role("button", name=name, exact=True)


def users(tab: Page) -> Locator:
    return tab.get_by_test_id("user")


def bots(tab: Page) -> Locator:
    return tab.get_by_test_id("bot")


def status(tab: Page) -> Locator:
    return tab.get_by_role("status").and_(tab.locator("#status p"))


def say(tab: Page, text: str) -> None:
    box(tab).fill(text)
    box(tab).press("Enter")


def finished(tab: Page, replies: int) -> None:
    """Waits until this many replies are whole."""
    expect(bots(tab)).to_have_count(replies)
    expect(button(tab, strings.STOP)).to_be_hidden()
    expect(status(tab)).to_contain_text("tokens")


def text_of(locator: Locator) -> str:
    return locator.inner_text().strip()


def picture(tab: Page, name: str) -> None:
    if folder := os.environ.get("CHATBOT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_message_is_answered_word_by_word(visit: Visit, pace: Pace) -> None:
    tab = visit()
    with pace.slow():
        say(tab, "hello there")
        expect(users(tab)).to_have_text("hello there")
        expect(box(tab)).to_have_value("")
        expect(bots(tab)).not_to_be_empty()
        beginning = text_of(bots(tab))
        expect(button(tab, strings.STOP)).to_be_visible()
        expect(button(tab, strings.RETRY)).to_be_disabled()
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
        for thread in threading.enumerate():
            if thread.name.endswith("(_run)"):
                thread.join(timeout=PATIENCE)
                assert not thread.is_alive()
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
    button(tab, strings.RETRY).click()
    expect(status(tab)).to_have_text(strings.NOTHING_TO_RETRY)
    button(tab, strings.UNDO).click()
    expect(status(tab)).to_have_text(strings.NOTHING_TO_UNDO)


def test_an_example_begins_a_conversation(visit: Visit) -> None:
    tab = visit()
    tab.get_by_text(strings.EXAMPLES[-1]).click()
    expect(users(tab)).to_have_text(strings.EXAMPLES[-1])
    finished(tab, 1)


def test_a_preset_sets_the_sliders_and_beams_show_candidates(visit: Visit) -> None:
    tab = visit()
    tab.get_by_text(strings.SETTINGS).click()
    temperature = tab.locator("#temperature input[type=number]")
    expect(temperature).to_have_value(f"{generation_preset('lively').temperature}")
    tab.get_by_label("careful").check()
    expect(temperature).to_have_value(f"{generation_preset('careful').temperature}")
    tab.get_by_label("precise").check()
    expect(temperature).to_be_hidden()
    expect(tab.locator("#beams input[type=number]")).to_have_value("4")
    say(tab, "hello")
    finished(tab, 1)
    tab.get_by_text(strings.ATTENTION).click()
    expect(tab.locator(".candidates tbody tr")).to_have_count(4)


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
    tab.get_by_text(strings.SETTINGS).click()
    expect(tab.get_by_label("lively")).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in (strings.SEND, strings.RETRY, strings.UNDO, strings.CLEAR):
        found = button(tab, name).bounding_box()
        assert found is not None
        assert found["x"] >= 0
        assert found["x"] + found["width"] <= PHONE["width"]
    picture(tab, "phone")


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
