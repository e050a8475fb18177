"""scripts/benchmark.py: what it makes up, the memory that it sees, and what it compares with."""

import json
import os
import runpy
import subprocess
import sys
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def script(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / "scripts" / "benchmarks" / "preparation.py"))


def test_what_is_made_up_looks_like_talk_and_stays_the_same(script: dict[str, Any]) -> None:
    lines = list(script["made_up"](2_000_000))
    assert 2_000_000 <= sum(map(len, lines)) < 3_100_000  # whole blocks
    assert lines == list(script["made_up"](2_000_000))
    texts = []
    for line in lines:
        messages = json.loads(line)["messages"]
        assert len(messages) >= 2
        roles = [role for role, _ in zip(cycle(("user", "assistant")), messages, strict=False)]
        assert [message["role"] for message in messages] == roles
        texts.append("\n".join(message["content"] for message in messages))
    assert len({*texts}) / len(texts) == pytest.approx(0.95, abs=0.02)
    words = Counter(" ".join(texts).lower().split())
    assert len(words) > 10_000
    assert words.most_common(1)[0][1] / words.total() == pytest.approx(0.05, abs=0.03)  # 1 / ln V


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux alone tells")
def test_memory_is_that_of_all_processes(script: dict[str, Any]) -> None:
    before = script["memory_of"](os.getpid())
    hold = "held = b'x' * 50_000_000; print(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        during = script["memory_of"](os.getpid())
        process.communicate(b"\n")
    assert len(during) == len(before) + 2
    assert 50e6 < sum(during) - sum(before) < 80e6


def test_the_plain_loop_says_what_generate_says(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(repository / "scripts")
    parts = runpy.run_path(str(repository / "scripts" / "benchmarks" / "replies.py"))
    torch.manual_seed(0)
    model = parts["ours"](24)
    sources = torch.randint(10, 2000, (3, 8))
    with torch.inference_mode():
        said = parts["by_plain_loop"](model, False)(sources, 1)
    assert said.shape == (3, 25)
    torch.testing.assert_close(said, parts["by_generate"](model)(sources, 1))


def test_the_least_time_is_that_of_reading_or_of_computing(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(repository / "scripts")
    from benchmarks.peers import Machine

    machine = Machine({"fp32": 100e9, "int8": 400e9}, read=10e9, has_vnni=True)
    # a row: 40 MB at 10 GB/s; a thousand: 2 * 10 M * 1,000 operations at 100 G a second
    assert machine.least_seconds(10_000_000, 1, "fp32") == pytest.approx(0.004)
    assert machine.least_seconds(10_000_000, 1, "int8") == pytest.approx(0.001)
    assert machine.least_seconds(10_000_000, 1000, "fp32") == pytest.approx(0.2)
    assert "fp32 100, int8 400; memory read 10 GB/s; with VNNI" in str(machine)
