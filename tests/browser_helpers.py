"""Steps of a person at the page, in a real Chromium, for the browser tests in `tests/app/`.

`CHATBOT_SCREENSHOTS=folder` keeps pictures of the page.
"""

import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from playwright.sync_api import Locator, Page, expect
from waiting import wait_until

from chatbot.app import strings
from chatbot.app.conversation import Bot

HOST = "127.0.0.1"
DESKTOP = {"width": 1100, "height": 860}
PHONE = {"width": 390, "height": 844}
STEP_SECONDS = 0.4  # of a slow model: there is time to stop a reply of 48 tokens
Visit = Callable[..., Page]
MakeBot = Callable[..., Bot]


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


class Pace:
    """Makes a model slow while `slow()` lasts, and counts its steps."""

    def __init__(self, bot: Bot) -> None:
        self.steps = 0
        self._slow, self._engine = False, bot.engine

        def wait(*_: object) -> None:  # a function: a model is copied with its hooks
            self.steps += 1
            if self._slow:
                threading.Event().wait(STEP_SECONDS)

        bot.model.lm_head.register_forward_pre_hook(wait)

    def rest(self) -> None:
        """Waits until nobody is answered."""
        wait_until(lambda: self._engine.load == (0, 0))

    @contextmanager
    def slow(self) -> Iterator[None]:
        self._slow = True
        try:
            yield
        finally:
            self._slow = False


def ready(tab: Page) -> None:
    """Waits until the page has been drawn, with what is stored."""
    expect(box(tab)).to_be_visible()
    expect(tab.locator("#history .log > *").first).to_be_visible()


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
    expect(status(tab)).to_contain_text("tokens")  # first: then the page settles, with buttons
    expect(tab.get_by_role("log")).to_have_attribute("aria-busy", "false")
    expect(button(tab, strings.STOP)).to_be_hidden()


def text_of(locator: Locator) -> str:
    return locator.inner_text().strip()


def picture(tab: Page, name: str) -> None:
    if folder := os.environ.get("CHATBOT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def rows(tab: Page) -> Locator:
    return tab.locator("#library li .title")


def bring(tab: Page, name: str, text: str) -> None:
    file: Any = {"name": name, "mimeType": "text/plain", "buffer": text.encode()}
    tab.locator("#library input[type=file]").set_input_files(file)


def fits(locator: Locator) -> None:
    found = locator.bounding_box()
    assert found is not None
    assert found["x"] >= 0
    assert found["x"] + found["width"] <= PHONE["width"]


def texts_within(*roots: object) -> Iterator[str]:
    """All texts that these hold, however deep; what a module or a class holds is not theirs."""
    seen: set[int] = set()
    waiting: list[object] = list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, ModuleType | type | Path):
            continue
        seen.add(id(found))
        if isinstance(found, str):
            yield found
        elif isinstance(found, bytes):
            yield found.decode("utf-8", "replace")
        elif isinstance(found, FunctionType):
            waiting += [found.__closure__, found.__defaults__, found.__dict__]
        else:
            waiting += gc.get_referents(found)
