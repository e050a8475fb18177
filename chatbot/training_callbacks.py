"""What happens around a training: sample replies, the progress bar, Ctrl-C, the time limit."""

import math
import signal
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from transformers import (
    PreTrainedTokenizerFast,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from chatbot.decoding import default_preset, generate_replies
from chatbot.presets import generation_preset


class SampleReplies(TrainerCallback):
    """Replies to fixed prompts at each evaluation: what a loss does not show."""

    def __init__(self, tokenizers: Sequence[PreTrainedTokenizerFast], prompts: list[str]):
        self.tokenizer, self.target_tokenizer = tokenizers[0], tokenizers[-1]
        self.conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        replies = generate_replies(
            kwargs["model"],
            self.tokenizer,
            self.conversations,
            generation_preset(default_preset(self.tokenizer)),
            target_tokenizer=self.target_tokenizer,
        )
        for conversation, reply in zip(self.conversations, replies, strict=True):
            print(f"  {conversation[0]['content']} -> {reply}")


class TrainingProgress(ProgressCallback):
    """The Trainer's bar, with its time to go; beside it loss, perplexity and tokens a second."""

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()
        self.seen = self.done = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self.started, self.done = time.monotonic(), state.global_step
        self.seen = state.num_input_tokens_seen

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        loss = logs.get("loss", logs.get("eval_loss"))
        if self.training_bar is None or loss is None:
            return
        seconds = time.monotonic() - self.started
        speed = (state.num_input_tokens_seen - self.seen) / seconds
        steps = max(1, state.global_step - self.done)
        left = seconds * (state.max_steps - state.global_step) / steps
        norm = f"gradient norm {logs['grad_norm']:.2f}, " if "grad_norm" in logs else ""
        self.training_bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} source tokens/s")
        kind = "validation" if "eval_loss" in logs else "training"
        self.training_bar.write(
            f"epoch {state.epoch:.2f}, step {state.global_step}: {kind} loss {loss:.4f} "
            f"(perplexity {math.exp(min(loss, 50)):.1f}), {norm}{speed:,.0f} source tokens/s, "
            f"{left / 60:.1f} minutes to go"
        )


class InterruptCallback(TrainerCallback):
    """Ctrl-C ends the training after the current step, with a checkpoint; twice, at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGINT, self._ask)

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.asked:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # the Trainer ends the epoch wherever it stops; one that goes on has not been at its end
        if self.asked and state.epoch % 1 and state.global_step < state.max_steps:
            control.should_evaluate = control.should_save = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nStopping after this step ... (Ctrl-C again: at once, without saving)", flush=True)


class StepClock(TrainerCallback):
    """When each step ended. The first of a process are slower."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.ends.append(time.monotonic())

    @property
    def seconds_per_step(self) -> float:
        ends = self.ends[len(self.ends) // 4 :]
        return (ends[-1] - ends[0]) / (len(ends) - 1)


class TimeLimit(TrainerCallback):
    """Ends the training after so many minutes, with an evaluation and a checkpoint."""

    def __init__(self, minutes: float):
        self.seconds = minutes * 60
        self.is_over = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if time.monotonic() - self.started > self.seconds:
            control.should_evaluate = control.should_save = control.should_training_stop = True
            self.is_over = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_over:  # evaluated and saved already
            control.should_evaluate = control.should_save = False
