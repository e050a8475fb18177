"""Serves the page: a free port, the address, the browser, and a clean end."""

import os
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

from chatbot.app import strings

LOCAL = "127.0.0.1"
DEFAULT_PORT = 7860
PORTS_TRIED = 100
# Gradio and the Hub client read these when they are imported.
OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def launch_app(
    *model_folders: Path,
    host: str = LOCAL,
    port: int | None = None,
    open_browser: bool = True,
    feedback: Path | None = None,
    **confidence: Any,
) -> None:
    """Serve the chat until Ctrl-C.

    Args:
        model_folders: None: the shipped model. Of several, one is picked on the page.
        host: The address to listen at; 127.0.0.1 is this computer alone.
        port: None: 7860, or the next one that is free.
        open_browser: Open the page, where there is a screen and a person at a terminal.
        feedback: File that ratings are appended to. None: `feedback.jsonl` where this computer
            alone is served, else nothing is rated.
        confidence: `min_confidence` and `fallback`, as of `ChatSession`.

    Raises:
        OSError: The port cannot be used, or the secret of stored conversations neither be read nor
            written.
        FileNotFoundError, ValueError: A folder holds no model of ours, or `min_confidence` is
            outside 0 to 1.
    """
    os.environ.update(OFFLINE)
    # imported late: the environment comes first, and a busy port is said before the model loads
    chosen = choose_port(host, port)
    if port is None and chosen != DEFAULT_PORT:
        print(strings.port_busy(DEFAULT_PORT, chosen), flush=True)
    from transformers.utils import logging

    from chatbot.app.conversation import Bot
    from chatbot.app.feedback import DEFAULT_FEEDBACK
    from chatbot.app.library import browser_secret
    from chatbot.app.page import build_page
    from chatbot.checkpoints import load_chatbot

    logging.disable_progress_bar()
    if feedback is None and host == LOCAL:
        feedback = DEFAULT_FEEDBACK
    folders = named(model_folders or (None,))
    bots = {name: Bot(*load_chatbot(folder), **confidence) for name, folder in folders.items()}
    page = build_page(bots, secret=browser_secret(), feedback=feedback)
    try:
        url = start(page, host, chosen)
        print(strings.address(url), flush=True)
        if open_browser and _has_screen():
            webbrowser.open(url)
        Event().wait()
    except KeyboardInterrupt:
        print(f"\n{strings.GOODBYE}")
    finally:
        page.close(verbose=False)


def start(page: Any, host: str, port: int) -> str:
    """Serve a page from `build_page` in threads of its own. Returns its address."""
    from chatbot.app.forgetting import forget_values
    from chatbot.app.page import STYLE, theme

    app, url, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        share=False,
        show_error=False,
        strict_cors=True,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=["api", "settings"],
        theme=theme(),
        css_paths=STYLE,
    )
    forget_values(app, page)
    return str(url)


def named(folders: Sequence[Path | None]) -> dict[str, Path | None]:
    """Folders of models by their names; where two have the same name, by their paths.

    Raises:
        ValueError: A folder is given twice.
    """
    names = [strings.TITLE if folder is None else folder.absolute().name for folder in folders]
    found = {
        name if names.count(name) == 1 else str(folder): folder
        for name, folder in zip(names, folders, strict=True)
    }
    if len(found) < len(folders):
        raise ValueError(strings.SAME_MODEL.format(", ".join(map(str, folders))))
    return found


def choose_port(host: str, port: int | None) -> int:
    """The port that was asked for, or the first free one from 7860 on.

    Raises:
        OSError: It cannot be used; the message names it and says what to do.
    """
    if port is not None:
        reason = _refusal(host, port)
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
