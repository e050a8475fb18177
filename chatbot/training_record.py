"""`run.json`: what a training was made of, so that it can be repeated, and how it went."""

import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState

from chatbot import __version__
from chatbot.data import REPORT_NAME
from chatbot.folders import write_atomically
from chatbot.hub_files import hub_config_path
from chatbot.training_run import TrainingRun

RECORD_NAME = "run.json"
_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy")


class RunRecord:
    """The file `run.json` of a run, and the session that is being added to it.

    Args:
        run: The run.
        resume: Whether it goes on from an earlier session.
        command: The command line, where there is one.
    """

    def __init__(self, run: TrainingRun, resume: bool, command: str | None):
        self.path = run.folder / RECORD_NAME
        self.config = json.loads(json.dumps(vars(run)))
        before = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {}
        if resume:
            _check_same(before.get("config", {}), self.config)
        same = resume or before.get("config") == self.config
        self.steps: dict[str, Any] | None = before.get("steps") if same else None
        """How the number of steps was chosen from `minutes`: by the first of the same runs."""
        self.sessions: list[dict[str, Any]] = before.get("sessions", []) if resume else []
        self.data = before.get("data") if resume else None
        started = datetime.now(UTC).isoformat("T", "seconds")
        self.session: dict[str, Any] = {"command": command, "started": started}
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since this session began."""
        return time.monotonic() - self.began

    def describe(self, folders: dict[str, Path], sources: Sequence[str]) -> None:
        """Note what is learned from: prepared folders by what they are for.

        Raises:
            ValueError: The run is resumed on other data than it began with.
        """
        data = {name: _fingerprint(folder) for name, folder in folders.items()}
        if self.data not in (None, data):
            raise ValueError("--resume: the data is not that which the run began with.")
        self.data = data
        self.licences = _licences(sources)

    def end(self, how: str, step: int) -> None:
        """Write how a session went."""
        self.session |= {"seconds": round(self.seconds, 1), "end": how, "step": step}
        self.write()

    def write(self) -> None:
        content = {
            "config": self.config,
            "steps": self.steps,
            "seed": self.config["trainer"].get("seed", 42),
            "threads": torch.get_num_threads(),
            "processes": PartialState().num_processes,
            "data": self.data,
            "licences": self.licences,
            "versions": {
                "python": platform.python_version(),
                "chatbot": __version__,
                **{name: version(name) for name in _LIBRARIES},
            },
            "hardware": _hardware(),
            "sessions": [*self.sessions, self.session],
        }
        write_atomically(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError where a run that goes on is asked to be another one."""
    for name in ("data", "start", "prepare", "model", "one_pass"):
        if name in before and now[name] != before[name]:
            raise ValueError(
                f"--resume: {name}={now[name]!r} is not possible; allowed: {before[name]!r}, with "
                "which the run began."
            )


def _fingerprint(folder: Path) -> dict[str, Any]:
    """The sources of a prepared folder, their weights, and the SHA-256 of what is learned."""
    report = json.loads((folder / REPORT_NAME).read_text("utf-8"))
    tokenizers = (folder / "tokenizer").rglob("tokenizer.json")
    learned = [*sorted(folder.glob("*/*.arrow")), *sorted(tokenizers)]
    prepared = {}
    for path in learned:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        prepared[path.relative_to(folder).as_posix()] = digest
    read = {"sources": report["files"], "weights": report["settings"]["weights"]}
    return {"folder": str(folder), **read, "prepared": prepared}


def _licences(sources: Sequence[str]) -> dict[str, str]:
    known = yaml.safe_load(hub_config_path("data_sources.yaml").read_text("utf-8"))
    return {name: known.get(name, {}).get("license", "unknown") for name in sorted(sources)}


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "system": platform.platform(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": gpus,
    }
