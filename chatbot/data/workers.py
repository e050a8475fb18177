"""Other processes, in which the items of a stream are worked on side by side."""

import gc
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import parent_process
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(task: Callable[[T], R], items: Iterable[T], num_proc: int) -> Iterator[R]:
    """The results of the items in their order, two of which wait for each process at most."""
    if num_proc == 1:
        yield from map(task, items)
        return
    pool = ProcessPoolExecutor(num_proc, initializer=_start_worker)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(task, item))
            if len(waiting) > 2 * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each core has a process already
    Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # by marking what it visits, the collector would copy the memory of the parent


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
