"""Waiting for what happens in another thread or process."""

import os
from collections.abc import Callable
from threading import Event

import pytest

# Seconds that one step may take: nothing waits longer than it must, but a machine may be busy.
PATIENCE = float(os.environ.get("CHATBOT_TEST_PATIENCE", "60"))


def wait_until(come: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Asks again and again, and fails once patience has ended."""
    pause = Event()
    for _ in range(int(patience * 20)):
        if come():
            return
        pause.wait(0.05)
    pytest.fail("it did not come")
