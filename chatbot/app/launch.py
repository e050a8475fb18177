"""Serves the page and OpenAI's routes: who may use them, a free port, the browser, a clean end."""

import os
import socket
import sys
import warnings
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from chatbot.app import strings
from chatbot.app.memory import keep_one_heap, stay_tidy
from chatbot.serving.guard import LOOPBACK, Rate, guarded_app

if TYPE_CHECKING:
    from chatbot.app.conversation import Bot
    from chatbot.app.lesson import Subject

LOCAL = "127.0.0.1"
DEFAULT_PORT = 7860
PORTS_TRIED = 100
RATE = 30  # messages a minute of each client, where others can come in
# Gradio and the Hub client read these when they are imported, oneDNN when it is first used.
ENVIRONMENT = {
    # it keeps the code that it makes for each shape: with its 1,024 a server grows for days
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "GRADIO_ANALYTICS_ENABLED": "False",
    # else the times of 10,000 calls are kept, and summed up anew after each
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def launch_app(
    *model_folders: Path,
    host: str = LOCAL,
    port: int | None = None,
    open_browser: bool = True,
    feedback: Path | None = None,
    auth: str | None = None,
    no_auth: bool = False,
    api_key: str | None = None,
    rate: int | None = None,
    **options: Any,
) -> None:
    """Serve the chat until Ctrl-C.

    Args:
        model_folders: None: the shipped model. Of several, one is picked on the page.
        host: The address to listen at; 127.0.0.1 is this computer alone.
        port: None: 7860, or the next one that is free.
        open_browser: Open the page, where there is a screen and a person at a terminal.
        feedback: File that ratings are appended to. None: `feedback.jsonl` where this computer
            alone is served, else nothing is rated.
        auth: Who may log in, as of `read_auth`. None: nobody needs to.
        no_auth: Whether others may come in without a login.
        api_key: What OpenAI's clients must show. None: nothing on this computer; where others can
            come in, or must log in, there are no such routes.
        rate: Messages a minute of each client. 0: any number. None: 30 where others can come in.
        options: `min_confidence`, `fallback` and `safety`, as of `ChatSession`.

    Raises:
        OSError: The port cannot be used, or the secret of stored conversations neither be read nor
            written.
        FileNotFoundError, ValueError: A folder holds no model of ours, an option is outside what
            is allowed, or others could come in and nobody said how.
    """
    os.environ.update(ENVIRONMENT)
    keep_one_heap()
    # imported late: the environment comes first, and a busy port is said before the model loads
    logins = check_access(host, auth, no_auth)
    chosen = choose_port(host, port)
    if port is None and chosen != DEFAULT_PORT:
        print(strings.port_busy(DEFAULT_PORT, chosen), flush=True)
    from transformers.utils import logging

    from chatbot.app.feedback import DEFAULT_FEEDBACK
    from chatbot.app.library import browser_secret
    from chatbot.app.page import build_page
    from chatbot.serving.openai import create_app

    logging.disable_progress_bar()
    if feedback is None and host == LOCAL:
        feedback = DEFAULT_FEEDBACK
    most = (0 if host in LOOPBACK else RATE) if rate is None else rate
    limit = Rate(most) if most else None
    folders = named(model_folders or (None,))
    bots, translators = load_models(folders, **options)
    page = build_page(
        bots,
        secret=browser_secret(),
        feedback=feedback,
        rate=limit,
        translators=translators,
    )
    api = None
    if api_key or (host in LOOPBACK and not logins):
        hosts = LOOPBACK if host in LOOPBACK else None
        engines = {name: bot.engine for name, bot in bots.items()}
        api = create_app(engines, api_key=api_key, hosts=hosts, rate=limit, **options)
    try:
        url = start(page, host, chosen, api, logins)
        print(strings.address(url), flush=True)
        if api is None:
            print(strings.ROUTES_OFF, flush=True)
        if open_browser and _has_screen():
            webbrowser.open(url)
        stay_tidy()
    except KeyboardInterrupt:
        print(f"\n{strings.GOODBYE}")
    finally:
        page.close(verbose=False)
        for bot in bots.values():
            bot.engine.close()


def load_models(
    folders: Mapping[str, Path | None], **options: Any
) -> "tuple[dict[str, Bot], dict[str, Subject]]":
    """The models that chat, and those of parallel text, which "How it works" alone shows.

    Raises:
        FileNotFoundError, ValueError: As `launch_app`, or none of them chats.
    """
    from chatbot.app.conversation import Bot
    from chatbot.app.lesson import Subject
    from chatbot.checkpoints import load_chatbot, load_target_tokenizer
    from chatbot.serving.engine import Engine
    from chatbot.tokenization import is_chat

    bots, translators = {}, {}
    for name, folder in folders.items():
        model, tokenizer = load_chatbot(folder)
        if is_chat(tokenizer):
            bots[name] = Bot(Engine(model, tokenizer), **options)
        else:
            translators[name] = Subject(model, tokenizer, load_target_tokenizer(folder))
    if not bots:
        raise ValueError(strings.NO_CHAT.format(", ".join(translators)))
    return bots, translators


def check_access(host: str, auth: str | None, no_auth: bool) -> list[tuple[str, str]]:
    """Names and passwords of those who may log in. Raises ValueError where others could come in."""
    if no_auth and auth:
        raise ValueError(strings.AUTH_TWICE)
    if host not in LOOPBACK and not auth and not no_auth:
        raise ValueError(strings.AUTH_NEEDED.format(host))
    return read_auth(auth) if auth else []


def read_auth(given: str) -> list[tuple[str, str]]:
    """Logins, `user:password`, or of `@FILE` one a line.

    Raises:
        ValueError: There is none, or one lacks its name or its password.
        OSError: The file cannot be read.
    """
    lines = Path(given[1:]).read_text("utf-8").split("\n") if given.startswith("@") else [given]
    parts = [line.strip().partition(":") for line in lines if line.strip()]
    if not parts or not all(user and password for user, _, password in parts):
        raise ValueError(strings.BAD_AUTH)
    return [(user, password) for user, _, password in parts]


def start(
    page: Any,
    host: str,
    port: int,
    api: FastAPI | None = None,
    logins: Sequence[tuple[str, str]] = (),
) -> str:
    """Serve a page from `build_page` in threads of its own, beside `api`. Returns its address."""
    import gradio as gr
    from gradio.http_server import Server
    from uvicorn import Config

    from chatbot.app.forgetting import forget_values
    from chatbot.app.page import STYLE, theme

    api = api or guarded_app(LOOPBACK if host in LOOPBACK else None)
    warnings.filterwarnings("ignore", "SSR mode is not supported")  # nor was it asked for
    gr.mount_gradio_app(
        api,
        page,
        path="/",
        server_name=host,
        server_port=port,
        auth=list(logins) or None,
        max_file_size=1,  # the page takes no files
        show_error=False,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=["api", "settings"],
        theme=theme(),
        css_paths=STYLE,
    )
    mounted: Any = api.routes[-1]
    page.app = mounted.app  # as launch() would have it, so that close() ends the server
    forget_values(page.app, page)
    config = Config(api, host=host, port=port, log_level="warning", timeout_graceful_shutdown=3)
    page.server = Server(config)
    page.server.run_in_thread()
    page.is_running = True
    name = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/"


def named(folders: Sequence[Path | None]) -> dict[str, Path | None]:
    """Folders of models by their names; where two have the same name, by their paths.

    Raises:
        ValueError: A folder is given twice.
    """
    names = [strings.TITLE if folder is None else _name_of(folder.absolute()) for folder in folders]
    found = {
        name if names.count(name) == 1 else str(folder): folder
        for name, folder in zip(names, folders, strict=True)
    }
    if len(found) < len(folders):
        raise ValueError(strings.SAME_MODEL.format(", ".join(map(str, folders))))
    return found


def _name_of(folder: Path) -> str:
    """Its last part; in the Hub's cache, `models--OWNER--NAME/snapshots/COMMIT`, its name there."""
    kept = folder.parent.parent.name.split("--")
    return "/".join(kept[1:]) if folder.parent.name == "snapshots" else folder.name


def choose_port(host: str, port: int | None) -> int:
    """The port that was asked for, or the first free one from 7860 on.

    Raises:
        OSError: It cannot be used; the message names it and says what to do.
    """
    if port is not None:
        reason = _refusal(host, port) if port else "0 is none"
        if reason is not None:
            raise OSError(strings.port_taken(port, host, reason))
        return port
    last = DEFAULT_PORT + PORTS_TRIED - 1
    for candidate in range(DEFAULT_PORT, last + 1):
        if _refusal(host, candidate) is None:
            return candidate
    raise OSError(strings.no_port(DEFAULT_PORT, last, host))


def _refusal(host: str, port: int) -> str | None:
    """Why a port cannot be listened at; None if it can."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def _has_screen() -> bool:
    """Whether a person would see a browser open."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    return sys.stdout.isatty()
