"""What the test of Ray puts into its processes: each says how many it answers; all can be slowed.

RAY_RUNTIME_ENV_HOOK=ray_helpers.runtime_env does it. CHATBOT_TEST_MARKS names a folder with a file
of each replica; while it holds a file `slow` too, a token takes a fifth of a second.
"""

import os
from pathlib import Path
from threading import Event
from typing import Any

from wrapt import register_post_import_hook


def runtime_env(given: dict[str, Any] | None) -> dict[str, Any]:
    return {**(given or {}), "worker_process_setup_hook": "ray_helpers.await_engine"}


def await_engine() -> None:
    """Ray's own processes have no engine, and shall not wait for torch."""
    register_post_import_hook(slow_down, "chatbot.serving.slots")


def slow_down(module: Any) -> None:
    marks, step = Path(os.environ["CHATBOT_TEST_MARKS"]), module.Slots.step

    def slow_step(slots: Any) -> list[int]:
        (marks / str(os.getpid())).write_text(str(len(slots.requests)))
        if (marks / "slow").exists():
            Event().wait(0.2)
        tokens: list[int] = step(slots)
        return tokens

    module.Slots.step = slow_step
