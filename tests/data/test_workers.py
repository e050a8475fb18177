"""Work in other processes: in order, and over at once when it is broken off."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from source_helpers import write

from chatbot.data.workers import in_order


def negated(number: int) -> int:
    if number == 99:
        raise ValueError("no")
    return -number


@pytest.mark.parametrize("num_proc", [1, 3])
def test_results_come_in_order_and_few_wait(num_proc: int) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    for place, result in enumerate(in_order(negated, numbers(), num_proc)):
        assert result == -place
        assert taken[-1] <= place + 2 * num_proc
    assert place == 49


@pytest.mark.parametrize("num_proc", [1, 2])
def test_an_error_is_that_of_the_task(num_proc: int) -> None:
    with pytest.raises(ValueError, match="no"):
        list(in_order(negated, [1, 99, 2], num_proc))


@pytest.fixture
def preparing(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`chatbot prepare`, whose two workers have begun."""
    lines = (
        f'{{"messages": [{{"role": "user", "content": "is {number} right?"}}, '
        f'{{"role": "assistant", "content": "no, {number + 1} is"}}]}}\n'
        for number in range(100_000)
    )
    chat = write(tmp_path / "in/chat.jsonl", "".join(lines))
    command = [sys.executable, "-m", "chatbot", "prepare", str(chat), "--processes", "2"]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out")],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not written(tmp_path):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_ends_all_processes_and_leaves_nothing(
    preparing: subprocess.Popen[str], tmp_path: Path
) -> None:
    os.killpg(preparing.pid, signal.SIGINT)  # as a terminal does
    _, complaint = preparing.communicate()
    assert preparing.returncode == 130
    assert "Traceback" not in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.raises(ProcessLookupError):
        os.killpg(preparing.pid, 0)  # nobody of them is left


def test_nobody_outlives_a_process_that_is_killed(
    preparing: subprocess.Popen[str], tmp_path: Path
) -> None:
    preparing.kill()
    preparing.communicate(timeout=60)  # until the workers, too, have closed what they print into
    assert preparing.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()


def written(folder: Path) -> bool:
    """Whether the workers have begun."""
    return any(path.stat().st_size for path in folder.glob(".out-*/train.noted"))
