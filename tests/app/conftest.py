"""A small random model for the app, which says nonsense through the real code, and its page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from browser_helpers import (
    DESKTOP,
    HOST,
    MakeBot,
    Pace,
    Visit,
    free_port,
    ready,
)
from modeling_helpers import tiny_model
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect
from playwright.sync_api import sync_playwright as playwright
from waiting import PATIENCE

from chatbot.app import strings
from chatbot.app.conversation import Bot
from chatbot.app.launch import start
from chatbot.app.page import build_page
from chatbot.serving.engine import Engine
from chatbot.tokenization import train_tokenizer


@pytest.fixture(scope="session")
def make_bot() -> MakeBot:
    """A bot with these settings whose replies never end by themselves."""
    tokenizer = train_tokenizer([*strings.EXAMPLES, "the quick brown fox, a lazy dog"] * 3)

    def make(**settings: object) -> Bot:
        model = tiny_model(
            vocab_size=len(tokenizer),
            decoder_vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=tokenizer.bos_token_id,
            **settings,
        )
        with torch.no_grad():
            model.lm_head.weight[:256].zero_()  # words, and no halves of letters
            model.lm_head.bias[:256] = -30.0
        return Bot(Engine(model, tokenizer))

    return make


@pytest.fixture(scope="session")
def bot(make_bot: MakeBot) -> Bot:
    return make_bot(attention="general")


@pytest.fixture(scope="module")
def pace(bot: Bot) -> Pace:
    return Pace(bot)


@pytest.fixture(scope="module")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback") / "feedback.jsonl"


@pytest.fixture(scope="module")
def served(bot: Bot, make_bot: MakeBot, pace: Pace, feedback: Path) -> gr.Blocks:
    bots = {"Looks": bot, "Does not": make_bot(attention="none")}
    return build_page(bots, secret="of this test", feedback=feedback)


@pytest.fixture(scope="module")
def address(served: gr.Blocks) -> Iterator[str]:
    yield start(served, HOST, free_port())
    served.close(verbose=False)


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
        watch(tab)
        tab.goto(url)
        ready(tab)
        return tab

    def watch(tab: Page) -> None:
        tab.on("dialog", refuse)
        tab.on("request", lambda request: look(request.url))
        tab.on("websocket", lambda websocket: look(websocket.url))
        tab.on("pageerror", lambda error: trouble.append(f"error: {error}"))

    expect.set_options(timeout=1_000 * PATIENCE)
    yield open_tab
    for context in contexts:
        context.close()
    assert trouble == []
