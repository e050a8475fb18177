"""A server that was killed and started again: the tabs that were open go on."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser_helpers import (
    HOST,
    Pace,
    Visit,
    bots,
    box,
    button,
    finished,
    free_port,
    picture,
    ready,
    say,
    users,
)
from playwright.sync_api import expect

from chatbot.app import strings
from chatbot.app.conversation import Bot
from chatbot.app.launch import start
from chatbot.app.page import build_page
from chatbot.checkpoints import save_chatbot

pytestmark = pytest.mark.browser


@contextmanager
def killed_at_the_end(folder: Path, port: int) -> Iterator[str]:
    """`chatbot serve`, which has no time to say goodbye."""
    call = [sys.executable, "-m", "chatbot", "serve", str(folder), "--no-browser"]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder)}
    with subprocess.Popen(
        [*call, "--port", str(port)], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        assert any(re.search(r"http://\S+", line) for line in iter(server.stdout.readline, ""))
        try:
            yield f"http://{HOST}:{port}"
        finally:
            server.kill()


def test_an_open_tab_goes_on_after_a_retry(tmp_path: Path, bot: Bot, visit: Visit) -> None:
    save_chatbot(bot.model, bot.tokenizer, tmp_path / "model")
    port = free_port()
    with killed_at_the_end(tmp_path / "model", port) as address:
        tab = visit(address)
        say(tab, "hello")
        finished(tab, 1)
        served = tab.evaluate("window.gradio_config.app_id")
    say(tab, "are you there?")
    expect(tab.get_by_text("Connection to the server was lost")).to_be_visible()
    expect(box(tab)).to_have_value("are you there?")
    with killed_at_the_end(tmp_path / "model", port):
        tab.wait_for_function("of => window.gradio_config?.app_id !== of", arg=served)
        ready(tab)  # Gradio has loaded it anew, and what was typed is there again
        expect(box(tab)).to_have_value("are you there?")
        button(tab, strings.SEND).click()
        finished(tab, 2)
        expect(users(tab)).to_have_text(["hello", "are you there?"])


def test_a_reply_that_broke_off_can_be_had_again(bot: Bot, pace: Pace, visit: Visit) -> None:
    port = free_port()
    first = build_page({"a": bot}, secret="kept in a file")
    tab = visit(start(first, HOST, port))
    with pace.slow():
        say(tab, "hello")
        expect(bots(tab)).to_have_text(re.compile(r"\w"))
        first.close(verbose=False)
        picture(tab, "broken")
    second = build_page({"a": bot}, secret="kept in a file")
    start(second, HOST, port)
    button(tab, strings.STOP).click()
    expect(tab.get_by_role("log")).to_have_attribute("aria-busy", "false")
    expect(bots(tab)).to_have_text(re.compile(r"\w"))
    say(tab, "again")
    finished(tab, 2)
    expect(users(tab)).to_have_text(["hello", "again"])
    second.close(verbose=False)
