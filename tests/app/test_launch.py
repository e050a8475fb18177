"""Ports, the address, and that a page in preparation asks nobody for anything."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_helpers import Chatbot

from chatbot.app import launch
from chatbot.app.launch import choose_port
from chatbot.app.page import build_page

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


@pytest.mark.parametrize(("host", "port"), [(HOST, 70_000), (HOST, -1), ("no such host", 8000)])
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
        launch.launch_app(None, port=busy_port)


def test_a_confidence_that_is_none_is_refused(tiny_chatbot_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"min_confidence=2 is not possible; allowed: 0 to 1\."):
        launch.launch_app(tiny_chatbot_folder, min_confidence=2)


def test_the_fallback_reaches_the_page(tiny_chatbot: Chatbot) -> None:
    page = build_page(*tiny_chatbot, min_confidence=1.0, fallback="Ask my boss.")
    (chat,) = (function.fn for function in page.fns.values() if function.api_name == "chat")
    assert list(chat("hello", None, None))[-1] == "Ask my boss."


def test_no_browser_opens_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not launch._has_screen()
