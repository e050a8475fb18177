"""The exponential moving average of the weights over the steps of a training.

It is what is evaluated and kept in the end; the weights themselves go on being trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

AVERAGE_NAME = "average.safetensors"

Tensors = list[Tensor] | tuple[Tensor, ...]


class WeightAverage(TrainerCallback):
    """Keeps the average, in checkpoints too.

    Args:
        model: What is trained.
        decay: Share of the average that a step leaves, once there were steps enough; below 1.
        checkpoint: Of the run that is resumed.
    """

    def __init__(self, model: PreTrainedModel, decay: float, checkpoint: Path | None):
        def update(averages: Tensors, weights: Tensors, step: Tensor | int) -> None:
            # young averages forget sooner: what they began with is no good
            kept = min(decay, (1 + int(step)) / (10 + int(step)))
            torch._foreach_lerp_(list(averages), list(weights), 1 - kept)

        self.model = model
        self.average = AveragedModel(model, multi_avg_fn=update)
        if checkpoint is not None:
            self.load(checkpoint)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.average.update_parameters(self.model)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
            tensors = dict(self.average.module.named_parameters())  # a tied one only once
            save_file({**tensors, "steps": self.average.n_averaged}, folder / AVERAGE_NAME)

    def load(self, checkpoint: Path) -> None:
        """Take the average of a checkpoint."""
        tensors = load_file(checkpoint / AVERAGE_NAME)
        self.average.n_averaged.copy_(tensors.pop("steps"))
        with torch.no_grad():
            for name, weight in self.average.module.named_parameters():
                weight.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the average for its weights, which come back in the end."""
        weights = [weight.detach().clone() for weight in self.model.parameters()]
        self.keep()
        try:
            yield
        finally:
            _overwrite(self.model, weights)

    def keep(self) -> None:
        """Give the model the average for good."""
        if self.average.n_averaged:
            _overwrite(self.model, list(self.average.module.parameters()))


@torch.no_grad()
def _overwrite(model: PreTrainedModel, weights: Tensors) -> None:
    torch._foreach_copy_(list(model.parameters()), list(weights))
