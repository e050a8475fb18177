"""The arms of the study: a configuration each, and which is trained how long from which seeds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from study.references import build_reference
from transformers import PreTrainedModel

from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.training_run import TrainingRun

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "study"
PLAN = Path(__file__).with_name("plan.yaml")
STUDY: dict[str, Any] = yaml.safe_load(PLAN.read_text("utf-8"))
# `--quick`: so small that a test can wait for it; it learns next to nothing.
QUICK_PLAN = {"quick": {"arms": ["base", "none", "gpt2"], "minutes": [0.03], "seeds": [1]}}
QUICK: dict[str, dict[str, Any]] = {
    "prepare": {"vocab_size": 600},
    "model": {"embedding_size": 32, "hidden_size": 32},
    "config": {"n_embd": 32, "n_layer": 1, "n_head": 2},
    "trainer": {"per_device_train_batch_size": 16},
}


@dataclass(frozen=True)
class Arm:
    """What is compared: a run as `chatbot train` takes it, whose `model` a reference replaces.

    Args:
        reference: `bart` or `gpt2`, with fields of its `config` and `learning_rates` to try.
    """

    run: TrainingRun
    reference: str | None
    config: dict[str, Any]
    learning_rates: list[float]

    def new_model(self) -> PreTrainedModel:
        """The model of the first step, for as many tokens as `prepare` makes."""
        tokens, longest = (self.run.prepare[name] for name in ("vocab_size", "max_source_tokens"))
        if self.reference:
            return build_reference(self.reference, tokens, self.config)
        sizes = {"vocab_size": tokens, "max_source_positions": longest, **self.run.model}
        return RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqConfig(**sizes))


def load_arm(name: str, quick: bool = False) -> Arm:
    """The arm of a file in `scripts/configs/study`."""
    values: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text("utf-8"))
    for section, smaller in QUICK.items() if quick else ():
        if section in values:
            values[section] |= smaller
    own = {"reference": None, "config": {}, "learning_rates": []}
    own = {key: values.pop(key, default) for key, default in own.items()}
    return Arm(TrainingRun(**values), **own)


@dataclass(frozen=True)
class Trial:
    """An arm, trained so many CPU-minutes from a seed; with `rate`, to try that learning rate."""

    arm: str
    minutes: float
    seed: int = 1
    rate: float | None = None

    @property
    def name(self) -> str:
        tried = f"-lr{self.rate:g}" if self.rate else ""
        return f"{self.arm}{tried}-{self.minutes:g}-{self.seed}"


def trials(quick: bool = False) -> dict[str, list[Trial]]:
    """The trials of each group of the plan, in their order."""
    return {
        group: [
            Trial(arm, minutes, seed, rate)
            for seed in of["seeds"]
            for minutes in of["minutes"]
            for arm in of["arms"]
            for rate in (load_arm(arm).learning_rates if group == "rates" else [None])
        ]
        for group, of in (QUICK_PLAN if quick else STUDY["plan"]).items()
    }
