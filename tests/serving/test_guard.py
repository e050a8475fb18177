"""How often, from where, and what becomes of errors, without a server."""

import asyncio
from typing import Any

import httpx
import pytest

from chatbot.serving.guard import Rate, guarded_app


def test_a_client_may_do_so_much_a_minute() -> None:
    now = [30.0]
    rate = Rate(2, lambda: now[0])
    assert [rate.allows("a"), rate.allows("a"), rate.allows("a")] == [True, True, False]
    assert rate.allows("b")
    now[0] = 59.9
    assert not rate.allows("a")
    now[0] = 60.0
    assert rate.allows("a")
    assert list(rate._counts) == ["a"]  # nobody else is remembered
    with pytest.raises(ValueError, match="rate=0 is not possible"):
        Rate(0)


def call(app: Any, method: str, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        (("localhost", "::1"), "localhost:80", 404),
        (("localhost", "::1"), "LOCALHOST", 404),
        (("localhost", "::1"), "[::1]:7860", 404),
        (("localhost", "::1"), "localhost.evil.example", 403),
        (("localhost", "::1"), "localhost@evil.example", 403),
        (("localhost", "::1"), "", 403),
        (None, "any.example", 404),
    ],
)
def test_hosts(hosts: Any, host: str, status: int) -> None:
    assert call(guarded_app(hosts), "GET", "/", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "path", ["file=/etc/passwd", "file/a", "upload", "proxy=https://a.example"]
)
def test_files_are_neither_taken_nor_given(path: str) -> None:
    refused = call(guarded_app(None), "GET", f"/gradio_api/{path}")
    assert (refused.status_code, refused.json()["detail"]) == (
        404,
        "Files are neither taken nor given here.",
    )


def test_what_breaks_an_inner_application_is_a_request_without_sense() -> None:
    app = guarded_app(None)

    @app.get("/breaks")
    async def breaks() -> None:
        raise KeyError("what was sent")

    @app.get("/works")
    async def works() -> str:
        return "yes"

    broken = call(outer := guarded_app(None), "GET", "/nowhere")
    assert broken.status_code == 404
    outer.mount("/in", app)
    broken = call(outer, "GET", "/in/breaks")
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "makes no sense" in broken.json()["detail"]
    assert call(outer, "GET", "/in/works").json() == "yes"
