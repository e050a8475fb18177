"""The memory of a server, which stays what it was.

glibc gives each thread a heap of its own, takes ever larger pieces into it, and gives back of it
only what is free at its end: heaps fill with holes. Python looks through old objects for circles
that nobody needs only when a quarter of them is new, and the libraries have a million.
"""

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import NoReturn

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h
LARGE = 1 << 21  # bytes; what is larger stands outside the heap
TIDY_SECONDS = 10


def keep_one_heap() -> None:
    """For all threads that are started from now on, and without what is large."""
    with suppress(AttributeError, OSError, TypeError):  # another libc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)


def stay_tidy() -> NoReturn:
    """Wait for ever, and give back now and then what is no longer needed.

    What is there by now stays, and is looked through no more: a look takes some milliseconds.
    """
    trim = _trimmer()
    gc.collect()
    gc.freeze()
    pause = Event()
    while True:
        pause.wait(TIDY_SECONDS)
        gc.collect()
        trim(0)


def _trimmer() -> Callable[[int], object]:
    """What gives the heap's free pages back."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another libc
        return bool
    return trim
