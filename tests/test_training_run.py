"""A run in YAML, and what the command line overrides."""

import re
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from chat_helpers import sample_tokenizer

from chatbot.data import prepare
from chatbot.training_model import build_model
from chatbot.training_run import TRAINER_DEFAULTS, TrainingRun, load_run, parse_overrides

YAML = """\
data: [a.jsonl, b.jsonl]
output: runs/mine
prepare: {vocab_size: 2000}
model: {preset: small, attention: dot}
trainer: {num_train_epochs: 5, eval_strategy: no}
source_weights: {sample-conversations: 8}
max_minutes: 2.5
save_dtype: bfloat16
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_yaml_is_a_run(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, YAML), {})
    assert run.data == ["a.jsonl", "b.jsonl"]
    assert run.folder == Path("runs/mine")
    assert run.prepare == {"vocab_size": 2000}
    assert run.model == {"preset": "small", "attention": "dot"}
    assert run.source_weights == {"sample-conversations": 8}
    assert (run.max_minutes, run.save_dtype, run.patience) == (2.5, "bfloat16", 3)
    # what the YAML does not name keeps its default; an unquoted `no` is YAML's False
    expected = {**TRAINER_DEFAULTS, "num_train_epochs": 5, "eval_strategy": "no"}
    assert run.trainer == expected


def test_the_command_line_wins(tmp_path: Path) -> None:
    line = (
        "--data c.jsonl --output=runs/other --model.attention general --model.hidden-size 64 "
        "--trainer.learning-rate 1e-3 --prepare.lowercase false --patience 7 --max-minutes null "
        "--source-weights.sample-conversations 4 --source_weights.b 0 --prompts [hi,bye]"
    )
    overrides = parse_overrides(line.split())
    run = load_run(write(tmp_path, YAML), overrides)
    assert run.data == ["c.jsonl"]
    assert run.output == "runs/other"
    assert run.model == {"preset": "small", "attention": "general", "hidden_size": 64}
    assert run.prepare == {"vocab_size": 2000, "lowercase": False}
    assert run.trainer["learning_rate"] == 0.001
    assert run.trainer["num_train_epochs"] == 5
    assert run.source_weights == {"sample-conversations": 4, "b": 0}
    assert (run.patience, run.max_minutes, run.prompts) == (7, None, ["hi", "bye"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("4.0E-3", 0.004),
        ("-2e5", -200000.0),
        ("true", True),
        ("null", None),
        ("dot", "dot"),
        ("[a, b]", ["a", "b"]),
        ("[a", "[a"),
        ("e3", "e3"),
        ("runs/1e3", "runs/1e3"),
        ("runs/my #1", "runs/my #1"),
        ("'5'", "5"),
    ],
)
def test_values_are_read_as_yaml(text: str, value: Any) -> None:
    parsed = parse_overrides(["--output", text])["output"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_section_can_be_given_whole() -> None:
    run = load_run(None, parse_overrides(["--model", "{preset: base}"]))
    assert run.model == {"preset": "base"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine.jsonl"], "'mine.jsonl': expected an option such as --model.attention dot"),
        (["--output", "x", "y"], "'y': expected an option"),
        (["--output"], "--output: a value is missing"),
    ],
)
def test_arguments_that_are_no_overrides(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_overrides(arguments)


@pytest.mark.parametrize(
    ("text", "unknown", "right"),
    [
        ("dat: [a.jsonl]", "dat", "data"),
        ("prepare: {vocabsize: 5}", "vocabsize", "vocab_size"),
        ("prepare: {overwrit: true}", "overwrit", None),
        ("model: {atention: dot}", "atention", "attention"),
        ("model: {prset: small}", "prset", "preset"),
        ("model: {hiden_size: 5}", "hiden_size", "hidden_size"),
        ("trainer: {learn_rate: 1}", "learn_rate", "learning_rate"),
        ("trainer: {num_epochs: 1}", "num_epochs", None),
    ],
)
def test_unknown_keys_are_refused(
    tmp_path: Path, text: str, unknown: str, right: str | None
) -> None:
    nearest = re.escape(repr(right)) if right else r"'\w+'"
    with pytest.raises(ValueError, match=f"unknown key '{unknown}'; did you mean {nearest}"):
        load_run(write(tmp_path, text), {})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--outptu", "unknown key 'outptu'; did you mean 'output'?"),
        ("--modl.attention", "unknown key 'modl'; did you mean 'model'?"),
        ("--model.atention", "unknown key 'atention'; did you mean 'attention'?"),
        ("--output.x", "unknown key 'output'"),
        ("--trainer.output_dir", "unknown key 'output_dir'"),
        ("--prepare.output", "unknown key 'output'"),
        ("--model.vocab_size_id", "unknown key 'vocab_size_id'; did you mean 'vocab_size'?"),
    ],
)
def test_unknown_options_are_refused(option: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_run(None, parse_overrides([option, "1"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: small", "model='small': allowed are key: value pairs."),
        ("trainer: [1]", "trainer=[1]: allowed are key: value pairs."),
        ("source_weights: 4", "source_weights=4: allowed are key: value pairs."),
        ("source_weights: {a: -1}", "source_weights.a=-1 is not possible; allowed: a number of"),
        ("source_weights: {a: .inf}", "source_weights.a=inf is not possible"),
        ("one_pass: maybe", "one_pass='maybe' is not possible; allowed: true, false, null."),
        ("average: 1", "average=1 is not possible; allowed: a number between 0 and 1, or null."),
        ("source_weights: {a: often}", "source_weights.a='often' is not possible"),
        ("patience: 0", "patience=0 is not possible; allowed: a whole number of at least 1."),
        ("patience: three", "patience='three' is not possible"),
        ("max_minutes: 0", "max_minutes=0 is not possible; allowed: a number above 0, or null."),
        ("max_minutes: soon", "max_minutes='soon' is not possible"),
        ("save_dtype: int8", "save_dtype='int8' is not possible; allowed: float32, bfloat16."),
        ("output: 5", "output=5 is not possible; allowed: a path."),
        ("output:", "output=None is not possible; allowed: a path."),
        ("data: 5", "data=5 is not possible; allowed: a list of paths."),
        ("data: [a.jsonl, 5]", "data=['a.jsonl', 5] is not possible; allowed: a list of paths."),
        ("prompts: [hi, 5]", "prompts=['hi', 5] is not possible; allowed: a list of texts."),
        ("trainer: {num_train_epochs: -1}", "trainer.num_train_epochs=-1 is not possible"),
        (
            "trainer: {learning_rate: fast}",
            "trainer.learning_rate='fast' is not possible; allowed: a number of at least 0.",
        ),
        (
            "trainer: {per_device_train_batch_size: 0}",
            "trainer.per_device_train_batch_size=0 is not possible; allowed: a number of at least",
        ),
        ("- data", "expected key: value pairs, found list."),
        ("just text", "expected key: value pairs, found str."),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_run(write(tmp_path, text), {})


@pytest.mark.parametrize("text", ["data: [a", "a: b: c", "\tx: 1", "\x00"])
def test_what_is_not_yaml_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is not YAML: "):
        load_run(path, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such file"):
        load_run(tmp_path / "nowhere.yaml", {})


def test_an_empty_yaml_is_the_default_run(tmp_path: Path) -> None:
    assert load_run(write(tmp_path, "# nothing\n"), {}) == TrainingRun() == load_run(None, {})


def test_tiny_yaml_says_what_the_defaults_are(repository: Path) -> None:
    written = load_run(repository / "scripts" / "configs" / "tiny.yaml", {})
    default = TrainingRun()
    defaults_of_prepare = {
        name: parameter.default for name, parameter in signature(prepare).parameters.items()
    }
    assert written.prepare == {name: defaults_of_prepare[name] for name in written.prepare}
    configs = [
        build_model(run, sample_tokenizer(), 96).config.to_dict() for run in (written, default)
    ]
    assert configs[0] == configs[1]
    for field in fields(TrainingRun):
        if field.name not in ("prepare", "model"):
            assert getattr(written, field.name) == getattr(default, field.name), field.name


def test_every_config_of_ours_loads(repository: Path) -> None:
    paths = sorted((repository / "scripts" / "configs").glob("*.yaml"))
    assert {"tiny", "released"} <= {path.stem for path in paths}
    for path in paths:
        run = load_run(path, {})
        assert build_model(run, sample_tokenizer(), 96).num_parameters() > 0


@pytest.mark.parametrize(
    ("model", "copies"),
    [
        ({}, True),
        ({"copy": False}, False),
        ({"attention": "none"}, False),
        ({"share_embeddings": False, "decoder_vocab_size": 900}, False),
    ],
)
def test_a_preset_copies_where_it_can(model: dict[str, Any], copies: bool) -> None:
    run = load_run(None, {"model": {"preset": "tiny", **model}})
    assert build_model(run, sample_tokenizer(), 96).config.copy is copies


def test_copying_without_attention_is_refused_where_it_is_asked_for() -> None:
    run = load_run(None, {"model": {"attention": "none", "copy": True}})
    with pytest.raises(ValueError, match="copy=True is not possible; allowed: False without"):
        build_model(run, sample_tokenizer(), 96)
