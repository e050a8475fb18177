"""The load test itself: a small crowd on the real server, and what it makes of faults."""

import os
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest


def test_a_small_crowd_finds_nothing(
    tiny_chatbot_folder: Path, tmp_path: Path, repository: Path
) -> None:
    call = [sys.executable, "scripts/load_app.py", str(tiny_chatbot_folder), "--quick"]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(call, capture_output=True, text=True, cwd=repository, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    first, errors, token, memory = done.stdout.splitlines()
    assert first.startswith("6 users")
    assert "program" in first
    assert "page" in first
    assert errors == "errors: 0"
    assert "times one user's" in token
    assert memory.startswith("memory: ")


@pytest.fixture(scope="module")
def script(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / "scripts/load_app.py"))


def test_memory_rises_by_the_slope_after_the_warm_up(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = [(100, 0.0), *((500 + 50 * n, 700 + 0.1 * n) for n in range(20))]
    crowd = script["Findings"](first=[1.0, 3.0], replies=1450, memory=seen)
    alone = script["Findings"](first=[0.5])
    options = Namespace(users=2, minutes=1, pause=0)
    assert script["report"](options, alone, crowd)
    said = capsys.readouterr().out
    assert "702 MB, +2.00 MB per 1,000 replies" in said
    assert "p95 2.90 s, 5.8 times one user's 0.50 s" in said
    crowd.errors["a word of somebody else's"] = 2
    assert not script["report"](options, alone, crowd)
    assert "errors: 2\n  2 × a word" in capsys.readouterr().out
