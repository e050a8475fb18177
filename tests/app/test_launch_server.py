"""The real `chatbot serve`, called by programs: the page's API, OpenAI's routes, and intruders."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from browser_helpers import HOST, free_port
from gradio_client import Client
from gradio_client.exceptions import AppError
from waiting import PATIENCE

from chatbot.chat import ChatSession

KEY = "a key of the tests"
HELLO: Any = [{"role": "user", "content": "hello there"}]
Serve = Callable[..., str]


@contextmanager
def served(*arguments: object, **environment: str) -> Iterator[str]:
    """`chatbot serve` in a process of its own, which Ctrl-C must end. Yields its address."""
    port = free_port()
    call = [sys.executable, "-m", "chatbot", "serve", "--port", str(port), "--no-browser"]
    with subprocess.Popen(
        [*call, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as server:
        assert server.stdout is not None
        try:
            lines = iter(server.stdout)
            assert any(re.search(rf"http://\S+:{port}/", line) for line in lines)
            yield f"http://{HOST}:{port}"
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=PATIENCE) == 0
        finally:
            server.kill()


@pytest.fixture(scope="module")
def folders(tiny_chatbot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model under two names."""
    other = tmp_path_factory.mktemp("other") / "other"
    other.symlink_to(tiny_chatbot_folder)
    return [tiny_chatbot_folder, other]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def alone(folders: list[Path], home: dict[str, str]) -> Iterator[str]:
    """A server of this computer alone, with a key."""
    with served(*folders, CHATBOT_API_KEY=KEY, **home) as address:
        yield address


@pytest.fixture(scope="module")
def shared(folders: list[Path], home: dict[str, str]) -> Iterator[str]:
    """A server for others, with a login and without a key."""
    options = ("--host", "0.0.0.0", "--rate", 3, "--no-safety")
    with served(folders[0], *options, CHATBOT_AUTH="anna:secret word", **home) as address:
        yield address


def client_of(address: str, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def test_openai_s_client_talks_to_each_model(alone: str, folders: list[Path]) -> None:
    client = client_of(alone)
    names = [model.id for model in client.models.list()]
    assert {"model", "model:careful", "other", "other:careful"} <= set(names)
    said = ChatSession.from_pretrained(folders[0], preset="greedy").reply("hello there").text
    for name in ("model:greedy", "other:greedy"):
        whole = client.chat.completions.create(model=name, messages=HELLO)
        parts = client.chat.completions.create(model=name, messages=HELLO, stream=True)
        assert whole.choices[0].message.content == said
        assert "".join(part.choices[0].delta.content or "" for part in parts) == said


def test_a_key_is_needed(alone: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        client_of(alone, "another").models.list()
    body = {"model": "model", "messages": HELLO}
    for headers in ({}, {"Authorization": f"Basic {KEY}"}):
        refused = httpx.post(f"{alone}/v1/chat/completions", json=body, headers=headers)
        assert refused.status_code == 401
        assert "API key" in refused.json()["error"]["message"]


def test_the_page_s_api_is_on_the_same_server(alone: str, folders: list[Path]) -> None:
    said = ChatSession.from_pretrained(folders[0], preset="greedy").reply("hello there").text
    client = Client(alone, verbose=False)
    assert client.predict("hello there", None, "greedy", "other", api_name="/chat") == said
    parts = list(client.submit("hello there", None, "greedy", api_name="/chat"))
    assert parts[-1] == said


@pytest.mark.parametrize("path", ["/", "/gradio_api/info", "/v1/models"])
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Host", "evil.example"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://[::1"),
    ],
)
def test_other_sites_are_refused(alone: str, path: str, header: str, value: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    refused = httpx.get(f"{alone}{path}", headers={**headers, header: value})
    assert refused.status_code == 403
    assert value in refused.json()["detail"]
    assert "access-control-allow-origin" not in refused.headers
    kind = "http://" if header == "Origin" else ""
    own = httpx.get(f"{alone}{path}", headers={**headers, header: f"{kind}localhost:1"})
    assert own.status_code == 200


def test_a_login_is_needed(shared: str) -> None:
    for path in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=a"):
        assert httpx.get(f"{shared}/{path}").status_code == 401
    call = {"data": ["hi"]}
    assert httpx.post(f"{shared}/gradio_api/call/chat", json=call).status_code == 401
    assert "hello" not in httpx.get(shared).text.lower()
    with pytest.raises(ValueError, match="not login"):
        Client(shared, auth=("anna", "wrong"), verbose=False)


def test_routes_without_a_key_are_off(shared: str) -> None:
    for path in ("models", "chat/completions"):
        assert httpx.get(f"{shared}/v1/{path}").status_code == 404


def test_who_says_too_much_waits(shared: str) -> None:
    client = Client(shared, auth=("anna", "secret word"), verbose=False)

    def talk() -> None:
        for _ in range(8):  # a minute may end between them
            client.predict("hello there", api_name="/chat")

    with pytest.raises(AppError, match="more than 3 messages in a minute"):
        talk()


def test_who_calls_too_often_waits(shared: str) -> None:
    """What the page calls besides: ten times as often as messages."""
    with httpx.Client(base_url=shared) as tab:
        tab.post("/login", data={"username": "anna", "password": "secret word"})
        parts = tab.get("/config").json()["components"]
        shelf = next(p["id"] for p in parts if "read_file" in (p["props"].get("server_fns") or []))
        call = {"session_hash": "s", "component_id": shelf, "fn_name": "read_file", "data": "{}"}
        answers = [tab.post("/gradio_api/component_server", json=call).json() for _ in range(62)]
    assert any("more than 30 calls in a minute" in answer["error"] for answer in answers)
    assert "30 calls" not in answers[0]["error"]


def test_guessing_passwords_takes_long(shared: str) -> None:
    form = {"username": "anna", "password": "guessed"}
    found = [httpx.post(f"{shared}/login", data=form) for _ in range(22)]
    assert {400, 429} == {answer.status_code for answer in found}
    assert "Please wait" in found[-1].json()["detail"]


RUBBISH: Any = [None, 1, "x", [], {}, {"messages": 5}, {"messages": [], "kind": "x", "title": 3}]


def test_what_makes_no_sense_is_said(alone: str) -> None:
    parts = httpx.get(f"{alone}/config").json()["components"]
    own = {(part["id"], name) for part in parts for name in part["props"].get("server_fns") or []}
    assert {name for _, name in own} >= {"read_file", "write_file", "rate"}
    call = {"session_hash": "s"}
    for part, name in own:
        for given in RUBBISH:
            asked = {"component_id": part, "fn_name": name, "data": given}
            answer = httpx.post(f"{alone}/gradio_api/component_server", json=call | asked)
            assert answer.status_code == 200, (name, given)
    for given in RUBBISH:
        for path in ("component_server", "queue/join", "call/chat", "call/v2/chat", "call/no", "x"):
            for body in (given, {"data": given}, call | {"data": [given], "fn_index": 10**6}):
                answer = httpx.post(f"{alone}/gradio_api/{path}", json=body)
                assert answer.status_code < 500, (path, body)
    unknown = httpx.post(f"{alone}/gradio_api/call/no", json={"data": []})
    assert "makes no sense" in unknown.json()["detail"]


def test_no_request_gets_past_the_queue(alone: str) -> None:
    refused = httpx.post(f"{alone}/gradio_api/run/chat", json={"data": ["hi", None, None, None]})
    assert refused.status_code == 404
    assert "join the queue" in refused.json()["detail"]


def test_requests_are_bounded(alone: str) -> None:
    long = b"a" * 4_000_001

    def parts() -> Iterator[bytes]:
        yield long

    for content in (long, parts()):  # of a length that is said, and that is not
        refused = httpx.post(f"{alone}/gradio_api/call/chat", content=content)
        assert refused.status_code == 413
        assert "longer than 4,000,000 bytes" in refused.json()["detail"]
    upload = httpx.post(f"{alone}/gradio_api/upload", files={"files": b"two bytes, or more"})
    assert upload.status_code == 404
