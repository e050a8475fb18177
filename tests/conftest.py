"""What all tests share: no network, one thread a process, caches in a folder of their own.

The environment is set before anything imports torch or a Hugging Face library; processes that
tests start inherit it.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

_CACHE = tempfile.mkdtemp(prefix="chatbot-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

os.environ.update(
    HF_HOME=_CACHE,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    GRADIO_ANALYTICS_ENABLED="False",
    MPLBACKEND="Agg",
    MPLCONFIGDIR=_CACHE,
    OMP_NUM_THREADS="1",
)

import pytest  # noqa: E402  (after the environment)

if TYPE_CHECKING:
    from chat_helpers import Chatbot

REPOSITORY = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that these tests belong to."""
    return REPOSITORY


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium: $CHROMIUM, or one on PATH; CI demands it, a developer may lack it."""
    named = os.environ.get("CHROMIUM")
    found = [path for name in ([named] if named else BROWSERS) if (path := shutil.which(name))]
    if found:
        return found[0]
    if named:
        pytest.fail(f"CHROMIUM names {named!r}, which cannot be run")
    message = f"no browser: set CHROMIUM or install one of {', '.join(BROWSERS)}"
    if os.environ.get("CHATBOT_REQUIRE_BROWSER"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def tiny_chatbot() -> "Chatbot":
    """Model and tokenizer of a random chatbot. Nobody changes them."""
    from chat_helpers import make_chatbot

    return make_chatbot()


@pytest.fixture(scope="session")
def tiny_chatbot_folder(tiny_chatbot: "Chatbot", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random chatbot on disk. Nobody changes it."""
    from chatbot.checkpoints import save_chatbot

    folder = tmp_path_factory.mktemp("chatbot") / "model"
    save_chatbot(*tiny_chatbot, folder)
    return folder
