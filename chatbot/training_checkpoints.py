"""Nothing is lost: checkpoints that are known to be whole, exact resumption, one run a folder."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import RandomSampler, Sampler
from transformers import (
    EarlyStoppingCallback,
    Seq2SeqTrainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from chatbot.folders import write_atomically
from chatbot.training_average import WeightAverage
from chatbot.training_retention import Retention

MANIFEST = "manifest.json"
LOCK = ".lock"


class ExactTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer whose order of examples in an epoch depends on the seed and the epoch alone.

    As it stands, batches of like length are drawn from torch's global generator, which is elsewhere
    when an epoch is begun a second time: a run resumed within its second epoch sees other batches.
    Where an average of the weights is kept, that is what is evaluated. `retention` holds a
    continued model to what it was.
    """

    average: WeightAverage | None = None
    retention: Retention | None = None

    def keep_average(self, average: WeightAverage) -> None:
        """Average the weights from now on. In a checkpoint, the manifest comes after it."""
        self.average = average
        self.callback_handler.callbacks.insert(0, average)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any
    ) -> Any:
        if self.retention is None or not model.training:
            return super().compute_loss(model, inputs, *args, **options)
        read = self.retention.disturb(inputs["input_ids"], inputs["attention_mask"])
        inputs |= dict(zip(("input_ids", "attention_mask"), read, strict=True))
        loss = super().compute_loss(model, inputs, *args, **options)
        kept = self.retention.loss(self.model, self.state.global_step)
        return loss + kept / self.current_gradient_accumulation_steps

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        with self.average.in_place() if self.average else nullcontext():
            metrics: dict[str, float] = super().evaluate(*args, **options)
        return metrics

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.average is not None:
            self.average.load(Path(self.state.best_model_checkpoint))

    def _get_train_sampler(self, *args: Any, **options: Any) -> Sampler[int] | None:
        sampler = super()._get_train_sampler(*args, **options)
        if not isinstance(sampler, LengthGroupedSampler | RandomSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return EpochOrder(sampler, seed)


class EpochOrder(Sampler[int]):
    """A sampler with a generator of its own; accelerate tells it the epoch."""

    def __init__(self, sampler: LengthGroupedSampler | RandomSampler, seed: int):
        self.sampler, self.seed, self.epoch = sampler, seed, 0
        sampler.generator = torch.Generator()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        self.sampler.generator.manual_seed(self.seed + self.epoch)
        yield from self.sampler


class ManifestCallback(TrainerCallback):
    """Writes sizes and SHA-256 of a checkpoint's files, after all of them."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            write_manifest(Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"))


class NothingLeft(Exception):  # noqa: N818  (no error)
    """The checkpoint is that of the last step: the Trainer would train one more."""


class Patience(EarlyStoppingCallback):
    """Early stopping that still knows after a resumption how long it has waited."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        stored = state.stateful_callbacks["Patience"]["attributes"]
        self.early_stopping_patience_counter = stored["early_stopping_patience_counter"]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            raise NothingLeft


class LastStep(TrainerCallback):
    """Raises NothingLeft where a training is resumed from its last step."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step >= state.max_steps:
            raise NothingLeft


class Divergence(TrainerCallback):
    """Ends the training before gradients that are no numbers reach the weights."""

    def __init__(self) -> None:
        self.step: int | None = None

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        parameters = list(kwargs["model"].parameters())
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        # in fp16 such a step is common, and the loss scaler leaves it out by itself
        if args.fp16 or torch.nn.utils.get_total_norm(gradients).isfinite():
            return
        self.step = state.global_step + 1
        for weight in parameters:
            weight.grad = None
        control.should_training_stop = True


def write_manifest(checkpoint: Path) -> None:
    """Name every file of a checkpoint with its size and SHA-256, once all are on the disk."""
    files = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name not in (MANIFEST, f".{MANIFEST}"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                digest = file_digest(file, "sha256").hexdigest()
            name = path.relative_to(checkpoint).as_posix()
            files[name] = {"size": path.stat().st_size, "sha256": digest}
    write_atomically(checkpoint / MANIFEST, json.dumps(files, indent=1) + "\n")


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, by its manifest. None: it is whole."""
    if not (checkpoint / MANIFEST).is_file():
        return "it was not written to its end"
    try:
        files = json.loads((checkpoint / MANIFEST).read_text("utf-8"))
        for name, expected in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["size"]:
                return f"{name} has {path.stat().st_size:,} bytes instead of {expected['size']:,}"
            with path.open("rb") as file:
                if file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    return f"{name} has another SHA-256 than when it was written"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


def newest_whole(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint; broken ones after it are named and removed.

    Raises:
        ValueError: None is whole, though at least one once was.
    """
    broken: dict[Path, str] = {}
    whole = None
    for checkpoint in map(Path, reversed(sort_checkpoints(str(checkpoints)))):
        fault = damage(checkpoint)
        if fault is None:
            whole = checkpoint
            break
        broken[checkpoint] = fault
    faults = [f"{checkpoint.name}: {fault}" for checkpoint, fault in broken.items()]
    if whole is None and any((checkpoint / MANIFEST).exists() for checkpoint in broken):
        raise ValueError(
            f"--resume: {checkpoints} holds no whole checkpoint ({'; '.join(faults)}); "
            "start again with --overwrite."
        )
    for checkpoint, fault in zip(broken, faults, strict=True):
        print(f"Left out and removed: {fault}")
        shutil.rmtree(checkpoint)
    return whole


def discard_unfinished(checkpoints: Path) -> bool:
    """Remove checkpoints that were not written to their end. Returns whether there were any."""
    halves = [
        folder
        for folder in checkpoints.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if not (folder / MANIFEST).is_file()
    ]
    for half in halves:
        shutil.rmtree(half)
    return bool(halves)


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Refuse a second run in the same folder. The system frees the lock of a process that died.

    Raises:
        FileExistsError: Another process trains there.
        OSError: The folder cannot be written to.
    """
    try:
        lock = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise OSError(f"{folder}: cannot be written to ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise FileExistsError(
                f"{folder}: process {lock.read().strip() or '?'} is training there; wait for it, "
                "or give another --output."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
