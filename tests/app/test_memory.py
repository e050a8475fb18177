"""What a server no longer needs is given back while it waits."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from chatbot.app import memory


class Circle:
    """Needs itself."""

    def __init__(self) -> None:
        self.itself = self


class StoppedError(Exception):
    """The end of waiting."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """How long was waited, each time; the third is the last."""
    waited: list[float] = []

    class Pause:
        def wait(self, seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                raise StoppedError

    monkeypatch.setattr(memory, "Event", Pause)
    gc.disable()
    yield waited
    gc.enable()
    gc.unfreeze()


def test_circles_go_and_the_rest_stays(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = []
    circle, kept = Circle(), Circle()
    gone = weakref.ref(circle)
    del circle
    assert gone() is not None  # nobody has looked yet
    monkeypatch.setattr(memory, "_trimmer", lambda: trimmed.append)
    with pytest.raises(StoppedError):
        memory.stay_tidy()
    assert gone() is None
    assert kept.itself is kept
    assert waits == [memory.TIDY_SECONDS] * 3
    assert trimmed == [0, 0]


def test_what_was_there_is_looked_through_no_more(waits: list[float]) -> None:
    with pytest.raises(StoppedError):
        memory.stay_tidy()
    assert gc.get_freeze_count() > 10_000


def test_another_libc_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(memory.ctypes, "CDLL", nothing)
    memory.keep_one_heap()
    assert memory._trimmer()(0) is False
