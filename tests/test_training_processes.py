"""Two processes over gloo train as one does on batches twice as large, and leave the same files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chat_helpers import few_dialogues, write_dialogues

from chatbot.data import prepare

STEPS = 4


def launched(processes: int, batch: int, data: Path, output: Path) -> list[float]:
    """The loss of each step, of a run that torchrun started."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    command += ["--standalone", "-m", "chatbot", "train", "--data", str(data)]
    options = {
        "output": output,
        "one_pass": "false",
        "model.embedding_size": 16,
        "model.hidden_size": 16,
        "model.dropout": 0,
        "trainer.max_steps": STEPS,
        "trainer.per_device_train_batch_size": batch,
        "trainer.logging_steps": 1,
        "trainer.train_sampling_strategy": "random",
        "trainer.eval_strategy": "steps",
        "trainer.eval_steps": STEPS,
        "trainer.save_strategy": "steps",
        "trainer.save_steps": STEPS,
    }
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert finished.returncode == 0, finished.stderr[-2000:]
    log = json.loads((output / "log.json").read_text())
    return [entry["loss"] for entry in log if "loss" in entry]


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    source = write_dialogues(tmp_path / "mine.jsonl", few_dialogues())
    prepare([source], tmp_path / "data")
    alone = launched(1, 4, tmp_path / "data", tmp_path / "alone")
    together = launched(2, 2, tmp_path / "data", tmp_path / "together")
    assert len(alone) == STEPS
    assert together == pytest.approx(alone, abs=1e-5)
    names = [
        sorted(path.relative_to(tmp_path / run).as_posix() for path in (tmp_path / run).rglob("*"))
        for run in ("alone", "together")
    ]
    # each process writes its own random state into a checkpoint
    states = {f"checkpoints/checkpoint-{STEPS}/rng_state_{rank}.pth" for rank in (0, 1)}
    assert set(names[0]) ^ set(names[1]) == {
        *states,
        f"checkpoints/checkpoint-{STEPS}/rng_state.pth",
    }
    records = [
        json.loads((tmp_path / run / "run.json").read_text()) for run in ("alone", "together")
    ]
    assert [record["processes"] for record in records] == [1, 2]
