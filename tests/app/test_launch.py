"""Ports, the address, and that a page in preparation asks nobody for anything."""

import copy
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from browser_helpers import MakeBot, free_port
from chat_helpers import Chatbot
from waiting import wait_until

from chatbot.app import conversation, forgetting, launch, strings
from chatbot.app.conversation import Bot
from chatbot.app.launch import choose_port, load_models
from chatbot.app.library import browser_secret
from chatbot.app.page import build_page
from chatbot.checkpoints import save_chatbot
from chatbot.cli import main
from chatbot.safety import check_message
from chatbot.serving.engine import Engine

HOST = "127.0.0.1"


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def test_the_next_free_port_is_taken(busy_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "DEFAULT_PORT", busy_port)
    assert choose_port(HOST, None) > busy_port


def test_a_busy_port_that_was_asked_for_is_an_error(busy_port: int) -> None:
    with pytest.raises(OSError, match=f"Port {busy_port} on {HOST} cannot be used .*--port"):
        choose_port(HOST, busy_port)


@pytest.mark.parametrize(
    ("host", "port"), [(HOST, 70_000), (HOST, 0), (HOST, -1), ("no such host", 8000)]
)
def test_what_is_no_port_or_no_host_is_an_error(host: str, port: int) -> None:
    with pytest.raises(OSError, match=f"Port {port} on {host} cannot be used"):
        choose_port(host, port)


def test_no_free_port_is_an_error(busy_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "DEFAULT_PORT", busy_port)
    monkeypatch.setattr(launch, "PORTS_TRIED", 1)
    with pytest.raises(OSError, match=f"No port from {busy_port} to {busy_port}"):
        choose_port(HOST, None)


def test_a_busy_port_is_said_before_the_model_loads(busy_port: int) -> None:
    with pytest.raises(OSError, match=str(busy_port)):
        launch.launch_app(port=busy_port)


def test_a_confidence_that_is_none_is_refused(tiny_chatbot_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"min_confidence=2 is not possible; allowed: 0 to 1\."):
        launch.launch_app(tiny_chatbot_folder, min_confidence=2)


def test_the_fallback_reaches_the_page(tiny_chatbot: Chatbot) -> None:
    bot = Bot(Engine(*tiny_chatbot), min_confidence=1.0, fallback="Ask my boss.")
    page = build_page({"a": bot}, secret="s")
    (chat,) = (function.fn for function in page.fns.values() if function.api_name == "chat")
    assert list(chat("hello", None, None))[-1] == "Ask my boss."
    assert list(chat("hello", model="a"))[-1] == "Ask my boss."
    with pytest.raises(gr.Error, match="model 'b' is unknown; allowed: a"):
        list(chat("hello", model="b"))


def test_what_no_page_fetches_is_forgotten(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "SECONDS_TO_FETCH", 0.0)
    page = build_page({"a": bot}, secret="s")
    url = launch.start(page, HOST, free_port())
    try:
        asked = httpx.post(f"{url}gradio_api/call/chat", json={"data": ["hello there"]})
        assert asked.json()["event_id"]
        queue = page._queue
        wait_until(lambda: not queue.pending_messages_per_session)
        assert not queue.pending_event_ids_session
    finally:
        page.close(verbose=False)


def test_models_are_named_by_their_folders() -> None:
    folders = [Path("runs/a/model"), Path("runs/b"), Path("old/b")]
    names = ["model", "runs/b", "old/b"]
    assert launch.named(folders) == dict(zip(names, folders, strict=True))
    assert launch.named([None]) == {strings.TITLE: None}
    cached = [Path(f"cache/models--ann--{name}/snapshots/0a1b") for name in ("bot", "wren")]
    assert list(launch.named(cached)) == ["ann/bot", "ann/wren"]
    with pytest.raises(ValueError, match="allowed: each folder once"):
        launch.named([Path("a"), Path("a")])


@pytest.mark.parametrize(
    ("host", "given", "kept"),
    [
        (HOST, None, "feedback.jsonl"),
        (HOST, "x.jsonl", "x.jsonl"),
        ("0.0.0.0", None, None),
        ("0.0.0.0", "x.jsonl", "x.jsonl"),
    ],
)
def test_ratings_are_off_where_others_can_come_in(
    tiny_chatbot_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    given: str | None,
    kept: str | None,
) -> None:
    asked: dict[str, Any] = {}

    def build(bots: object, **options: Any) -> object:
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("chatbot.app.page.build_page", build)
    options: Any = {"feedback": given and Path(given), "no_auth": host != HOST}
    with pytest.raises(KeyboardInterrupt):
        launch.launch_app(tiny_chatbot_folder, host=host, **options)
    assert asked["feedback"] == (kept and Path(kept))
    assert asked["secret"] == browser_secret(tmp_path / "chatbot")


@pytest.mark.parametrize(
    ("host", "options", "said"),
    [
        ("0.0.0.0", {}, r"host='0.0.0.0' lets other computers in.* --auth .* --no-auth"),
        ("::", {}, "host='::' lets"),
        (HOST, {"auth": "anna:x", "no_auth": True}, "exclude each other"),
        (HOST, {"auth": "anna"}, "USER:PASSWORD"),
        (HOST, {"auth": "anna:"}, "USER:PASSWORD"),
        (HOST, {"rate": -1}, "rate=-1 is not possible; allowed: 1 or more"),
        ("0.0.0.0", {"auth": "@nowhere/at all"}, "No such file"),
    ],
)
def test_who_may_come_in_is_said_first(host: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises((OSError, ValueError), match=said) as caught:
        launch.launch_app(Path("no model"), host=host, **options)
    assert "anna" not in str(caught.value)  # a password must not reach a log


def test_logins_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "logins").write_text("anna:a:b c\n\n  ben:d \n", "utf-8")
    found = launch.read_auth(f"@{tmp_path / 'logins'}")
    assert found == [("anna", "a:b c"), ("ben", "d")]


def test_the_command_passes_on_who_may_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("chatbot.app.launch_app", lambda *folders, **options: asked.update(options))
    monkeypatch.setenv("CHATBOT_API_KEY", "of the environment")
    assert main(["serve", "--auth", "anna:x", "--rate", "5", "--no-safety"]) == 0
    assert (asked["auth"], asked["rate"], asked["safety"]) == ("anna:x", 5, False)
    assert (asked["api_key"], asked["no_auth"]) == ("of the environment", False)


def test_safety_can_be_left_off(tiny_chatbot: Chatbot) -> None:
    message = "i want to die"
    said = [
        list(conversation.answer(Bot(Engine(*tiny_chatbot), safety=s), message, None, "greedy"))[-1]
        for s in (True, False)
    ]
    assert said[0] == check_message(message)
    assert said[1] != said[0]


def test_no_browser_opens_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not launch._has_screen()


def test_a_translator_is_shown_beside_a_chat(bot: Bot, make_bot: MakeBot, tmp_path: Path) -> None:
    save_chatbot(bot.model, bot.tokenizer, tmp_path / "chat")
    reading = copy.deepcopy(bot.tokenizer)
    reading.chat_template = None
    both = make_bot(attention="dot", share_embeddings=False)
    save_chatbot(both.model, reading, tmp_path / "it-en", target_tokenizer=bot.tokenizer)
    folders = {name: tmp_path / name for name in ("it-en", "chat")}
    bots, translators = load_models(folders, fallback="what?")
    assert (list(bots), list(translators)) == (["chat"], ["it-en"])
    assert bots["chat"].fallback == "what?"
    assert len(translators["it-en"].target_tokenizer) == len(bot.tokenizer)
    with pytest.raises(ValueError, match="None of these models chats: it-en"):
        load_models({"it-en": tmp_path / "it-en"})
