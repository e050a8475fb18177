"""Whatever happens to a training, nothing of it is lost."""

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from chat_helpers import few_dialogues, write_dialogues
from safetensors.torch import load_file
from test_checkpoints import full_disk
from test_training import quietly, small_run

from chatbot import load_chatbot
from chatbot.cli import main
from chatbot.data import prepare
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.training_checkpoints import (
    MANIFEST,
    EpochOrder,
    damage,
    discard_unfinished,
    newest_whole,
    sole_run,
    write_manifest,
)
from chatbot.training_run import TrainingRun

# Ends itself by SIGKILL as soon as the file whose path ends so is opened, or takes its place.
KILLED = """
import os, signal, sys
def kill(event, arguments):
    paths = {"open": arguments[:1], "os.rename": arguments[1:2]}.get(event, ())
    if any(str(path).endswith(sys.argv[1]) for path in paths):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
from chatbot.cli import main
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare([write_dialogues(folder / "mine.jsonl", few_dialogues())], folder / "prepared")
    return folder / "prepared"


def long_run(prepared: Path, output: Path, **trainer: Any) -> TrainingRun:
    """Two epochs and a half, with dropout, saved and evaluated at every fourth step."""
    steps = {"max_steps": 24, "eval_steps": 4, "save_steps": 4, "per_device_train_batch_size": 8}
    return small_run(prepared, output, **{**steps, **trainer})


def killed_at(path: str, run: TrainingRun, *options: str) -> None:
    config = run.folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(vars(run)), "utf-8")
    command = [sys.executable, "-c", KILLED, path, "train", str(config), *options]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


def test_kills_change_not_a_bit(prepared: Path, tmp_path: Path) -> None:
    run, undisturbed = (long_run(prepared, tmp_path / name) for name in ("killed", "undisturbed"))
    perplexity, _ = quietly(undisturbed)
    killed_at("killed/run.yaml", run)  # before there is anything but the data
    killed_at("checkpoint-4/trainer_state.json", run, "--resume")  # before there is a whole one
    killed_at("checkpoint-20/.manifest.json", run, "--resume")  # in the second epoch
    killed_at("killed/model", run, "--resume")  # when all is learned, before the model is there
    assert not (run.folder / "model").exists()
    resumed, printed = quietly(run, resume=True)
    assert f"Going on from {run.folder / 'checkpoints' / 'checkpoint-24'}\n" in printed
    assert resumed == perplexity
    for name in ("model/model.safetensors", "checkpoints/checkpoint-24/model.safetensors"):
        found, expected = load_file(run.folder / name), load_file(undisturbed.folder / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    losses = [
        [
            entry["loss"]
            for entry in json.loads((folder / "log.json").read_text())
            if "loss" in entry
        ]
        for folder in (run.folder, undisturbed.folder)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 24


def test_an_order_depends_on_its_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochOrder(torch.utils.data.RandomSampler(range(50)), seed)
        sampler.set_epoch(epoch)
        torch.rand(epoch + seed + 1)  # the global generator is elsewhere each time
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in (0, 10) for epoch in range(3)}) == 6
    assert sorted(order(0, 0)) == list(range(50))


def test_patience_outlives_a_resumption(prepared: Path, tmp_path: Path) -> None:
    """Nothing is learned: the second evaluation would end it. The first is before the kill."""
    run = small_run(prepared, tmp_path / "run", learning_rate=0.0)
    run.patience = 2
    quietly(run)
    assert checkpoints(run) == ["checkpoint-2", "checkpoint-6"]
    before = load_file(run.folder / "model" / "model.safetensors")
    for step in (6, 4):  # at its end, and after the second evaluation
        _, printed = quietly(run, resume=True)
        assert "Going on from" in printed
        log = json.loads((run.folder / "log.json").read_text())
        assert max(entry["step"] for entry in log if "loss" in entry) == 6, step
    after = load_file(run.folder / "model" / "model.safetensors")
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def checkpoints(run: TrainingRun) -> list[str]:
    return sorted(entry.name for entry in (run.folder / "checkpoints").iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> list[Path]:
    """Three whole checkpoints, the newest last."""
    folders = [tmp_path / f"checkpoint-{step}" for step in (8, 9, 10)]
    for folder in folders:
        (folder / "deeper").mkdir(parents=True)
        (folder / "weights").write_bytes(bytes(range(256)))
        (folder / "deeper" / "state.json").write_text("{}")
        write_manifest(folder)
    return folders


def truncate(checkpoint: Path) -> None:
    os.truncate(checkpoint / "weights", 255)


def flip(checkpoint: Path) -> None:
    content = bytearray((checkpoint / "weights").read_bytes())
    content[100] ^= 1
    (checkpoint / "weights").write_bytes(content)


FAULTS: dict[str, Callable[[Path], object]] = {
    "weights has 255 bytes instead of 256": truncate,
    "weights has another SHA-256 than when it was written": flip,
    "deeper/state.json is missing": lambda folder: (folder / "deeper" / "state.json").unlink(),
    "it was not written to its end": lambda folder: (folder / MANIFEST).unlink(),
    "it cannot be read (": lambda folder: (folder / MANIFEST).write_text('{"weights": {"si'),
    "it cannot be read ('list'": lambda folder: (folder / MANIFEST).write_text("[]"),
}


@pytest.mark.parametrize(("fault", "harm"), FAULTS.items(), ids=list(FAULTS))
def test_a_broken_checkpoint_is_named_and_left_out(
    saved: list[Path],
    capsys: pytest.CaptureFixture[str],
    fault: str,
    harm: Callable[[Path], object],
) -> None:
    assert [damage(checkpoint) for checkpoint in saved] == [None] * 3
    assert newest_whole(saved[0].parent) == saved[2]  # 10, which text would sort before 8
    harm(saved[2])
    assert newest_whole(saved[0].parent) == saved[1]
    assert f"Left out and removed: checkpoint-10: {fault}" in capsys.readouterr().out
    assert [checkpoint.exists() for checkpoint in saved] == [True, True, False]


def test_where_all_are_broken_none_is_removed(saved: list[Path]) -> None:
    for checkpoint in saved:
        flip(checkpoint)
    with pytest.raises(ValueError, match=r"no whole checkpoint \(checkpoint-10: weights has"):
        newest_whole(saved[0].parent)
    assert all(checkpoint.exists() for checkpoint in saved)


def test_a_first_checkpoint_that_was_cut_off_is_no_loss(saved: list[Path]) -> None:
    for checkpoint in saved:
        (checkpoint / MANIFEST).unlink()
    assert newest_whole(saved[0].parent) is None
    assert newest_whole(saved[0].parent / "nowhere") is None
    assert not any(checkpoint.exists() for checkpoint in saved)


def test_only_what_is_unfinished_is_discarded(saved: list[Path]) -> None:
    (saved[1] / MANIFEST).unlink()
    assert discard_unfinished(saved[0].parent)
    assert [checkpoint.exists() for checkpoint in saved] == [True, False, True]
    assert not discard_unfinished(saved[0].parent)


def test_a_manifest_is_replaced_whole(saved: list[Path]) -> None:
    before = (saved[0] / MANIFEST).read_bytes()
    (saved[0] / "weights").write_bytes(b"other")
    with full_disk(50), pytest.raises(OSError, match="too large"):
        write_manifest(saved[0])
    assert (saved[0] / MANIFEST).read_bytes() == before


def test_two_runs_do_not_share_a_folder(prepared: Path, tmp_path: Path) -> None:
    run = small_run(prepared, tmp_path / "run")
    run.folder.mkdir()
    with sole_run(run.folder):
        message = rf"run: process {os.getpid()} is training there; wait for it, or give another"
        with pytest.raises(FileExistsError, match=message):
            quietly(run)
    assert not list(run.folder.iterdir())


def test_the_dead_hold_no_lock(tmp_path: Path) -> None:
    command = (
        "import os, pathlib, signal, sys; from chatbot.training_checkpoints import sole_run\n"
        "with sole_run(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", command, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    dead = (tmp_path / ".lock").read_text()
    with sole_run(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n" != dead


def test_a_folder_that_cannot_be_written_is_named(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "run", tmp_path / "closed"):
        (tmp_path / "closed" / ".lock").mkdir(parents=True, exist_ok=True)  # nobody can open it
        assert main(["train", "--data", str(prepared), "--output", str(output)]) == 2
        assert str(output) in capsys.readouterr().err


def interfere(
    monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Let `act` change the loss of the training's step `at`."""
    forward = RnnSeq2SeqForConditionalGeneration.forward
    steps = SimpleNamespace(done=0)

    @functools.wraps(forward)  # the Trainer asks for its signature
    def changed(model: RnnSeq2SeqForConditionalGeneration, *args: Any, **kwargs: Any) -> Any:
        output = forward(model, *args, **kwargs)
        steps.done += model.training
        if model.training and steps.done == at:
            output.loss = act(output.loss)
        return output

    monkeypatch.setattr(RnnSeq2SeqForConditionalGeneration, "forward", changed)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_it_with_the_last_good_model(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    run, short = (small_run(prepared, tmp_path / name) for name in ("run", "short"))
    short.trainer |= {"max_steps": 4, "lr_scheduler_type": "constant"}
    run.trainer["lr_scheduler_type"] = "constant"
    quietly(short)
    interfere(monkeypatch, 5, lambda loss: loss * factor)
    with pytest.raises(ValueError, match=r"step 5: .*Try a lower trainer\.learning_rate \(it was"):
        quietly(run)
    found, expected = (
        load_file(each.folder / "model" / "model.safetensors") for each in (run, short)
    )
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    model, _ = load_chatbot(run.folder / "model")
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert main(["train", str(run.folder / "run.yaml"), "--resume"]) == 0


def test_too_little_memory_says_what_to_lower(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(prepared, tmp_path / "run")
    interfere(monkeypatch, 3, lambda loss: loss * torch.empty(2**52))
    message = r"batches of 4: lower trainer\.per_device_train_batch_size"
    with pytest.raises(MemoryError, match=message):
        quietly(run)
    assert checkpoints(run) == ["checkpoint-2"]


def test_the_best_checkpoint_may_be_lost(prepared: Path, tmp_path: Path) -> None:
    run = small_run(prepared, tmp_path / "run", max_steps=4, learning_rate=0.0)
    quietly(run)  # the first of equals is the best
    os.truncate(run.folder / "checkpoints" / "checkpoint-2" / "model.safetensors", 9)
    perplexity, printed = quietly(run, resume=True)
    assert "Left out and removed: checkpoint-2: model.safetensors has 9 bytes" in printed
    assert perplexity is not None
