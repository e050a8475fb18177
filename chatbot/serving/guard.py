"""What every route of a server stands behind: who may call it, how often, and with how much.

A page of another site, open in a browser on this computer, can reach a server here by its address,
or by a name that its owner lets point here. Hence Host and Origin are looked at.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from threading import Lock
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.datastructures import Headers
from fastapi.responses import JSONResponse

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_REQUEST_BYTES = 4_000_000  # a conversation of a million characters
TOO_LONG = f"The request is longer than {MAX_REQUEST_BYTES:,} bytes."
LOGINS = 10  # that a client may try in a minute
KINDS = {401: "authentication_error", 429: "rate_limit_error"}
_ADDRESS = re.compile(r"(?:https?://)?\[?([^/\[\]]*?)\]?(?::\d+)?")
# What Gradio would fetch, take or pass on for anybody; the page needs none of it.
_FILES = re.compile(r"/gradio_api/(?:file|upload|proxy|process_recording|stream)\b.*")
Message = MutableMapping[str, Any]
logger = logging.getLogger(__name__)


class Rate:
    """Counts what each client does in a minute of the clock; then its address is forgotten."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic):
        if most < 1:
            raise ValueError(f"rate={most!r} is not possible; allowed: 1 or more a minute.")
        self.most, self._clock = most, clock
        self._minute, self._counts, self._lock = 0, Counter[str](), Lock()

    def allows(self, client: str) -> bool:
        """Whether this client may do it once more; if so, it counts."""
        with self._lock:
            minute = int(self._clock() // 60)
            if minute != self._minute:
                self._minute, self._counts = minute, Counter()
            self._counts[client] += 1
            return self._counts[client] <= self.most


class Guard:
    """ASGI middleware: refuses foreign hosts and pages, too many logins, and too long requests.

    Args:
        hosts: Names under which the server may be called, and its pages may call it. None: any.
    """

    def __init__(self, app: Any, hosts: Sequence[str] | None):
        self.app, self.hosts, self.logins = app, hosts, Rate(LOGINS)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refusal, failed, length = self._refusal(scope), False, 0

        async def receive_some() -> Message:
            nonlocal length
            message: Message = await receive()
            length += len(message.get("body", b""))
            if length > MAX_REQUEST_BYTES:
                raise HTTPException(413, TOO_LONG)
            return message

        async def send_on(message: Message) -> None:
            nonlocal failed
            failed |= message.get("status") == 500
            if not failed:
                await send(message)

        try:
            if refusal is None:
                await self.app(scope, receive_some, send_on)
        except Exception as error:
            if not failed:
                raise
            logger.warning("%s %s: %s", scope["method"], scope["path"], type(error).__name__)
        if failed:  # so Gradio answers what it does not understand; replies fail in other ways
            refusal = 400, "This request makes no sense here."
        if refusal is not None:
            await JSONResponse(error_body(*refusal), refusal[0])(scope, receive, send)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and sentence, from what comes before a request's body."""
        headers = Headers(scope=scope)
        for header in ("host", "origin") if self.hosts is not None else ():
            given = headers.get(header)
            address = _ADDRESS.fullmatch((given or "").lower())
            if given is not None and (not address or address[1] not in (self.hosts or ())):
                return 403, f"{header.title()} {given!r} is not allowed here."
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_REQUEST_BYTES:
            return 413, TOO_LONG
        if _FILES.fullmatch(scope["path"]):
            return 404, "Files are neither taken nor given here."
        login = scope["method"] == "POST" and scope["path"].rstrip("/") == "/login"
        if login and not self.logins.allows(client_of(scope)):
            return 429, f"More than {LOGINS} logins were tried in a minute. Please wait."
        return None


def guarded_app(hosts: Sequence[str] | None, **options: Any) -> FastAPI:
    """An application without routes, behind a guard."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, **options)
    app.add_middleware(Guard, hosts=hosts)
    return app


def client_of(scope: Message) -> str:
    """Whom a request comes from; behind a proxy see `FORWARDED_ALLOW_IPS` of uvicorn."""
    return str((scope.get("client") or ("",))[0])


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """A refusal as OpenAI's clients expect it; `detail` is what Gradio's read."""
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": message, "type": kind, "param": param, "code": None}
    return {"error": error, "detail": message}
