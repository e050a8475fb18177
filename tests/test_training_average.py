"""The moving average of the weights: by hand, in checkpoints, and as what is kept."""

from pathlib import Path

import pytest
import torch
from modeling_helpers import tiny_model
from safetensors.torch import load_file
from test_training import prepared as prepared  # a fixture
from test_training import quietly, small_run, weights
from transformers import TrainerControl, TrainerState, TrainingArguments

from chatbot.training_average import AVERAGE_NAME, WeightAverage


def step(average: WeightAverage, value: float) -> None:
    with torch.no_grad():
        for weight in average.model.parameters():
            weight.fill_(value)
    arguments = TrainingArguments("unused", use_cpu=True)
    average.on_optimizer_step(arguments, TrainerState(), TrainerControl())


def test_the_average_by_hand() -> None:
    model = tiny_model()
    average = WeightAverage(model, 0.15, None)
    step(average, 8.0)  # the first is taken as it is
    step(average, 16.0)  # young: 2/11 are more than 0.15, so 0.15 are kept
    expected = 0.15 * 8 + 0.85 * 16
    kept = next(model.parameters()).clone()
    with average.in_place():
        torch.testing.assert_close(
            next(model.parameters()), torch.full_like(kept, expected), rtol=0, atol=1e-5
        )
    torch.testing.assert_close(next(model.parameters()), kept, rtol=0, atol=0)
    average.keep()
    assert next(model.parameters()).flatten()[0].item() == pytest.approx(expected)


def test_a_young_average_forgets_sooner() -> None:
    average = WeightAverage(tiny_model(), 0.9, None)
    step(average, 0.0)
    step(average, 11.0)
    weight = next(average.average.module.parameters()).flatten()[0].item()
    assert weight == pytest.approx(11 * (1 - 2 / 11))


def test_a_run_keeps_the_average_and_resumes_it(prepared: Path, tmp_path: Path) -> None:
    """Stopped in the middle or not: the same bits; and they are not those of the last step."""
    whole = small_run(prepared, tmp_path / "whole", lr_scheduler_type="constant")
    whole.average = 0.5
    quietly(whole)
    checkpoint = max(
        (whole.folder / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime
    )
    stored = load_file(checkpoint / AVERAGE_NAME)
    assert f'"{AVERAGE_NAME}"' in (checkpoint / "manifest.json").read_text()
    last = load_file(checkpoint / "model.safetensors")
    kept = weights(whole)
    assert any(not torch.equal(kept[name], last[name]) for name in last)
    assert all(torch.equal(kept[name], stored[name]) for name in last)

    half = small_run(prepared, tmp_path / "half", max_steps=4, lr_scheduler_type="constant")
    half.average = 0.5
    quietly(half)
    half.trainer["max_steps"] = 6
    quietly(half, resume=True)
    resumed = weights(half)
    assert all(torch.equal(kept[name], resumed[name]) for name in kept)
