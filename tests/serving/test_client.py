"""Our client and a server that breaks off: what is asked again, and what is said to be broken."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from chatbot.serving.client import BrokenReplyError, connect, stream_reply

HELLO = [{"role": "user", "content": "hello"}]
WHOLE = ["", "so it ", "is", None]  # parts of a reply; None: its end
AT_ONCE = {"Retry-After-Ms": "1"}


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `answers`: a status, or the parts of a stream. What
    comes after the last part is a lost connection, unless it was the end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Any] = []
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.answers[self.server.asked]
        self.server.asked += 1
        self.close_connection = True
        if isinstance(answer, int):
            self._begin(answer, {"Content-Length": "0", **AT_ONCE})
        elif answer != "lost":
            self._begin(200, {"Transfer-Encoding": "chunked", "Content-Type": "text/event-stream"})
            for part in answer:
                self._send(part)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, part: Any) -> None:
        if isinstance(part, dict):
            event = part
        else:
            delta, finish = ({}, "stop") if part is None else ({"content": part}, None)
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            event = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
            event["choices"] = [choice]
        data = f"data: {json.dumps(event)}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if part is None:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running: Server) -> Server:
    running.answers, running.asked = [], 0
    return running


def stream(server: Server, retries: int = 2) -> Iterator[str]:
    with connect(server.url, retries=retries) as client:
        yield from stream_reply(client, "m", HELLO)


def test_a_stream_comes_in_parts(server: Server) -> None:
    server.answers = [WHOLE]
    assert list(stream(server)) == ["so it ", "is"]


@pytest.mark.parametrize("first", [500, 503, "lost", [], [""]], ids=str)
def test_what_was_not_answered_is_asked_again(server: Server, first: object) -> None:
    server.answers = [first, WHOLE]
    assert list(stream(server)) == ["so it ", "is"]
    assert server.asked == 2


@pytest.mark.parametrize("end", [[], [{"error": {"message": "The reply failed."}}]], ids=str)
def test_a_reply_that_breaks_in_the_middle_is_an_error(server: Server, end: list[Any]) -> None:
    server.answers = [["", "so ", "it ", *end], WHOLE]
    parts, reply = [], stream(server)
    with pytest.raises(BrokenReplyError, match="broke off after 6 characters") as caught:
        parts.extend(iter(lambda: next(reply), object()))
    assert caught.value.text == "so it "
    assert server.asked == 1


def test_a_refusal_is_not_asked_again(server: Server) -> None:
    server.answers = [400]
    with pytest.raises(openai.BadRequestError):
        next(stream(server))
    assert server.asked == 1


@pytest.mark.parametrize(
    ("answer", "error"), [(503, openai.InternalServerError), ([""], BrokenReplyError)], ids=str
)
def test_it_gives_up(server: Server, answer: object, error: type[Exception]) -> None:
    server.answers = [answer] * 9
    with pytest.raises(error):
        next(stream(server))
    assert server.asked == 3
