"""A training run as one YAML file: what it may say, and how the command line overrides it.

    data: [mine.jsonl]          chatbot train run.yaml --data other.jsonl --model.attention dot
    model: {preset: small}

Unknown keys are refused with the nearest right name.
"""

import math
import re
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import yaml
from tokenizers import Tokenizer
from transformers import Seq2SeqTrainingArguments

from chatbot.data import natural_task, prepare
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqConfig
from chatbot.presets import check_names

# What a run wants of the Trainer where its YAML says nothing.
TRAINER_DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 30,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 4e-3,
    "warmup_steps": 0.05,  # below 1: a share of all steps
    "lr_scheduler_type": "linear",
    "weight_decay": 0.01,
    "adam_beta2": 0.98,
    "max_grad_norm": 1.0,
    "train_sampling_strategy": "group_by_length",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "greater_is_better": False,
    "logging_steps": 50,
    "include_num_input_tokens_seen": "non_padding",
    "prediction_loss_only": True,
    "use_cache": True,  # the Trainer writes this into the saved config
    "report_to": "none",
}
# And where it continues a trained model: no part of the data is held out, so nothing would say
# which checkpoint is best.
CONTINUED_DEFAULTS: dict[str, Any] = {
    **TRAINER_DEFAULTS,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 24,
    "learning_rate": 2e-3,
    "eval_strategy": "steps",
    "eval_steps": 200,
    "save_strategy": "steps",
    "save_steps": 200,
    "load_best_model_at_end": False,
}
SCRATCH, SHIPPED = "scratch", "shipped"
# Decided by the run itself: a folder, and what the collator and the model agree upon.
_TRAINER_RESERVED = {"output_dir", "remove_unused_columns", "predict_with_generate"}
_PREPARE_RESERVED = {"sources", "output", "overwrite", "tokenizer"}


@dataclass
class TrainingRun:
    """One training.

    Args:
        data: A folder that `chatbot prepare` wrote, or sources for it. Empty: the project's own
            sample conversations.
        output: Folder of the run: `model/`, `checkpoints/`, `data/` and the log.
        start: `scratch` for a new model, `shipped` to continue ours, or the folder of another one.
            None: ours where there are data, and neither these nor `model` say otherwise.
        rehearse: Of a continued model: weight of staying what it was in talks with itself, beside
            what it learns.
        noise: Of a continued model: the largest share of a context's words that go missing, and of
            strange ones between. None: 0.7, or 0 where a part of the data is held out.
        least_steps: Of a continued model, where neither steps nor minutes are given.
        hold_out: Whether part of the data is kept for validation and test. None: from scratch only.
        prepare: Options of `chatbot.data.prepare`, where `data` are sources.
        model: `preset`, and fields of `RnnSeq2SeqConfig` that differ from it.
        trainer: Fields of transformers' `Seq2SeqTrainingArguments`.
        source_weights: How often the examples of a source are seen in one epoch: 2.5 is twice, and
            half of its dialogues once more. Default 1, or what was said when they were prepared.
        one_pass: Whether all replies of a dialogue are learned in one pass. None: where that is
            possible, which it is not with a bidirectional encoder.
        average: Decay of an exponential moving average of the weights, which is then what is
            evaluated and kept. None: none.
        patience: Evaluations without a better validation loss after which training stops.
        minutes: How long to train: speed is measured, and the number of steps chosen from it.
        max_minutes: Wall-clock limit of the training. None: none.
        save_dtype: Number format of the saved weights.
        prompts: What sample replies at each evaluation answer.
    """

    data: list[str] = field(default_factory=list)
    output: str = "runs/tiny"
    start: str | None = None
    rehearse: float = 2.0
    noise: float | None = None
    least_steps: int = 800
    hold_out: bool | None = None
    prepare: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    source_weights: dict[str, float] = field(default_factory=dict)
    one_pass: bool | None = None
    average: float | None = None
    patience: int = 3
    minutes: float | None = None
    max_minutes: float | None = None
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    prompts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.data, str):
            self.data = [self.data]
        prepare_options = set(signature(prepare).parameters) - _PREPARE_RESERVED
        check_names(self.prepare, prepare_options, "prepare")
        check_names(self.model, {"preset", *_own_fields(RnnSeq2SeqConfig)}, "model")
        trainer_fields = {entry.name for entry in fields(Seq2SeqTrainingArguments)}
        check_names(self.trainer, trainer_fields - _TRAINER_RESERVED, "trainer")
        # YAML reads an unquoted `no` as False
        given = {
            key: "no" if value is False and key.endswith("_strategy") else value
            for key, value in self.trainer.items()
        }
        if self.start is None:
            self.start = SHIPPED if _fits_shipped(self.data, self.prepare, self.model) else SCRATCH
        if self.hold_out is None:
            self.hold_out = self.start == SCRATCH
        if self.noise is None:
            self.noise = 0 if self.hold_out or self.start == SCRATCH else 0.7
        defaults = TRAINER_DEFAULTS if self.start == SCRATCH else CONTINUED_DEFAULTS
        self.trainer = {**defaults, **given}
        _check_numbers(self.trainer)
        for source, weight in self.source_weights.items():
            if not _is_number(weight) or not 0 <= weight < math.inf:
                raise ValueError(
                    f"source_weights.{source}={weight!r} is not possible; "
                    "allowed: a number of at least 0."
                )
        checks = {
            "data": (_are_texts(self.data), "a list of paths"),
            "output": (isinstance(self.output, str) and self.output, "a path"),
            "start": (isinstance(self.start, str) and self.start, "scratch, shipped, or a folder"),
            "rehearse": (
                _is_number(self.rehearse) and 0 <= self.rehearse < math.inf,
                "a number of at least 0",
            ),
            "noise": (_is_number(self.noise) and 0 <= self.noise < 1, "from 0 to below 1, or null"),
            "least_steps": (type(self.least_steps) is int and self.least_steps >= 0, "0 or more"),
            "hold_out": (isinstance(self.hold_out, bool), "true, false"),
            "one_pass": (self.one_pass in (None, True, False), "true, false, null"),
            "average": (
                self.average is None or (_is_number(self.average) and 0 < self.average < 1),
                "a number between 0 and 1, or null",
            ),
            "patience": (
                type(self.patience) is int and self.patience > 0,
                "a whole number of at least 1",
            ),
            "minutes": (_is_duration(self.minutes), "a number above 0, or null"),
            "max_minutes": (_is_duration(self.max_minutes), "a number above 0, or null"),
            "prompts": (_are_texts(self.prompts), "a list of texts"),
            "save_dtype": (self.save_dtype in ("float32", "bfloat16"), "float32, bfloat16"),
        }
        for name, (possible, allowed) in checks.items():
            if not possible:
                value = getattr(self, name)
                raise ValueError(f"{name}={value!r} is not possible; allowed: {allowed}.")
        if self.start == SCRATCH and not self.hold_out:
            raise ValueError(
                "hold_out=False is not possible with start='scratch': the best weights are chosen "
                "on what is held out; allowed: true, or a model to continue."
            )
        if self.start != SCRATCH and self.model:
            raise ValueError(
                f"model={self.model!r} is not possible with start={self.start!r}, which keeps its "
                "own sizes; allowed: start=scratch."
            )

    @property
    def folder(self) -> Path:
        return Path(self.output)


def load_run(config: Path | None, overrides: dict[str, Any]) -> TrainingRun:
    """A run from a YAML file and dotted overrides, `{"model.attention": "dot"}`.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is not YAML, or a key or value is not possible.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values = _read_yaml(config)
    _check_sections(values)
    for dotted, value in overrides.items():
        section, _, name = dotted.partition(".")
        if not name:
            values[section] = value
            continue
        check_names([section], _sections(), f"--{dotted}")
        values[section] = {**values[section], name: value}
    _check_sections(values)
    check_names(values, (entry.name for entry in fields(TrainingRun)), str(config or "train"))
    return TrainingRun(**values)


def parse_overrides(arguments: list[str]) -> dict[str, Any]:
    """`["--model.attention", "dot"]` as a dict; values are read as YAML.

    Raises:
        ValueError: An argument that is not an option, or an option without a value.
    """
    overrides: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ValueError(f"{option!r}: expected an option such as --model.attention dot")
        name, equals, value = option[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"{option}: a value is missing")
            value = rest.pop(0)
        section, dot, key = name.partition(".")
        section = section.replace("-", "_")
        if section != "source_weights":  # its keys are names of sources, dashes and all
            key = key.replace("-", "_")
        overrides[section + dot + key] = _parse_value(value)
    return overrides


def _parse_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if not isinstance(value, str) or text.startswith(("'", '"')):
        return value
    # YAML takes 1e-3 for text, and " #" in a path for a comment
    return float(value) if _NUMBER.fullmatch(value) else text


_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; see scripts/configs/ for complete runs.")
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected key: value pairs, found {type(values).__name__}.")
    return values


def _check_sections(values: dict[str, Any]) -> None:
    for section in _sections():
        values[section] = values.get(section) or {}  # `model:` with nothing behind it
        if not isinstance(values[section], dict):
            raise ValueError(f"{section}={values[section]!r}: allowed are key: value pairs.")


def _check_numbers(trainer: dict[str, Any]) -> None:
    """The Trainer itself would fail late, or never: -1 epochs train nothing."""
    for entry in fields(Seq2SeqTrainingArguments):
        default: Any = entry.default
        if entry.name not in trainer or type(default) not in (int, float):
            continue
        value = trainer[entry.name]
        counts = entry.name.endswith(("batch_size", "accumulation_steps"))
        least = 1 if counts else min(0, default)
        if type(value) not in (int, float) or value < least:
            raise ValueError(
                f"trainer.{entry.name}={value!r} is not possible; "
                f"allowed: a number of at least {least}."
            )


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_duration(value: Any) -> bool:
    return value is None or (_is_number(value) and value > 0)


def _fits_shipped(data: Any, options: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether nothing says that a new model is wanted: no data, sizes, or another vocabulary."""
    if (
        not data
        or not _are_texts(data)
        or model
        or (options.get("task") or natural_task(data)) != "chat"
        or {"vocab_size", "level", "lowercase"} & options.keys()
    ):
        return False
    ours = hub_config_path("pretrained", "tokenizer.json")
    prepared = [path for source in data if (path := Path(source, "tokenizer", ours.name)).is_file()]
    return all(_vocabulary(path) == _vocabulary(ours) for path in prepared)


def _vocabulary(tokenizer: Path) -> dict[str, int]:
    return Tokenizer.from_file(str(tokenizer)).get_vocab()


def _sections() -> list[str]:
    return [entry.name for entry in fields(TrainingRun) if entry.default_factory is dict]


def _own_fields(config: type) -> list[str]:
    """Fields that our config declares itself: those of transformers are not a run's business."""
    return [name for name in config.__annotations__ if not name.endswith("_id")]
