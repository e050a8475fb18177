"""Real trainings, of a few steps on a few of our conversations."""

import contextlib
import io
import json
import math
import os
import re
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from chat_helpers import few_dialogues, write_dialogues
from datasets import Dataset
from safetensors.torch import load_file
from test_checkpoints import FILES, full_disk, model_files

from chatbot import ChatSession, load_chatbot
from chatbot.cli import main
from chatbot.data import load_prepared, prepare
from chatbot.evaluation import Perplexity, measure_perplexity
from chatbot.training import train
from chatbot.training_data import weigh_sources, with_validation
from chatbot.training_run import TrainingRun, load_run

STEPS = 6


class Finished(NamedTuple):
    run: TrainingRun
    perplexity: Perplexity
    printed: str


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare([write_dialogues(folder / "mine.jsonl", few_dialogues())], folder / "prepared")
    return folder / "prepared"


def small_run(prepared: Path, output: Path, **trainer: Any) -> TrainingRun:
    """Six steps of a model of a few thousand weights, evaluated and saved at every second."""
    return TrainingRun(
        data=[str(prepared)],
        output=str(output),
        model={"embedding_size": 16, "hidden_size": 16},
        trainer={
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.01,
            "warmup_steps": 0,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_strategy": "steps",
            "save_steps": 2,
            "logging_steps": 1,
            **trainer,
        },
        prompts=["hi"],
    )


def quietly(run: TrainingRun, **options: bool) -> tuple[Perplexity | None, str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        perplexity = train(run, **options)
    return perplexity, output.getvalue()


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A training that went to its end. Nobody changes its folder."""
    run = small_run(prepared, tmp_path_factory.mktemp("runs") / "first")
    perplexity, printed = quietly(run)
    assert perplexity is not None
    return Finished(run, perplexity, printed)


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "model" / "model.safetensors")


def test_a_run_leaves_a_folder_that_explains_itself(finished: Finished) -> None:
    folder = finished.run.folder
    assert {entry.name for entry in folder.iterdir()} == {
        "checkpoints",
        "learning_curve.svg",
        "log.json",
        "model",
        "run.json",
        "run.yaml",
    }
    assert model_files(folder / "model") == FILES
    assert json.loads((folder / "model" / "generation_config.json").read_text())["max_new_tokens"]
    assert len(list((folder / "checkpoints").iterdir())) == 2
    assert load_run(folder / "run.yaml", {}) == finished.run


def test_the_log_holds_every_loss(finished: Finished) -> None:
    log = json.loads((finished.run.folder / "log.json").read_text())
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    assert list(losses) == [2, 4, 6]
    assert losses[6] < losses[2]


def test_a_run_says_how_it_went(finished: Finished) -> None:
    printed = finished.printed
    assert re.search(r"^0\.0 M parameters, \d+ tokens, \d+ replies to learn, \d+ to", printed)
    assert len(re.findall(r"^  hi -> \S", printed, re.MULTILINE)) == 3
    assert f"Validation perplexity: {finished.perplexity}\n" in printed
    assert printed.endswith(f"Chat with it: chatbot chat {finished.run.folder / 'model'}\n")


def test_the_best_model_is_the_one_that_is_left(finished: Finished, prepared: Path) -> None:
    model, tokenizer = load_chatbot(finished.run.folder / "model")
    measured = measure_perplexity(model, tokenizer, load_prepared(prepared)["validation"])
    assert measured.nats == pytest.approx(finished.perplexity.nats, rel=1e-5)
    log = json.loads((finished.run.folder / "log.json").read_text())
    best = min(entry["eval_loss"] for entry in log if "eval_loss" in entry)
    assert math.log(measured.per_token) == pytest.approx(best, rel=1e-3)


def test_the_result_can_be_chatted_with(finished: Finished) -> None:
    session = ChatSession.from_pretrained(finished.run.folder / "model", seed=0)
    assert session.max_source_tokens == 96
    assert session.reply("hello").text


def test_one_seed_gives_one_model(finished: Finished, prepared: Path, tmp_path: Path) -> None:
    again, other = small_run(prepared, tmp_path / "again"), small_run(prepared, tmp_path / "other")
    quietly(again)
    other.trainer |= {"seed": 7, "max_steps": 2}
    quietly(other)
    assert_same(weights(again), weights(finished.run), 0)
    name = "lm_head.bias"
    assert not torch.equal(weights(other)[name], weights(finished.run)[name])


def assert_same(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float
) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=tolerance, msg=name)


class CtrlC(io.StringIO):
    """An output that presses Ctrl-C each time one of these texts is written to it."""

    def __init__(self, *triggers: str):
        super().__init__()
        self.triggers = triggers

    def write(self, text: str) -> int:
        if any(trigger in text for trigger in self.triggers):
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


def test_an_interrupted_run_goes_on_where_it_was(
    finished: Finished, prepared: Path, tmp_path: Path
) -> None:
    run = small_run(prepared, tmp_path / "run")
    handler = signal.getsignal(signal.SIGINT)
    output = CtrlC("hi -> ")  # the sample replies, after two steps
    with contextlib.redirect_stdout(output):
        assert train(run) is None
    assert signal.getsignal(signal.SIGINT) is handler
    assert output.getvalue().endswith(
        f"Stopped and saved. Go on with: chatbot train {run.folder / 'run.yaml'} --resume\n"
    )
    assert not (run.folder / "model").exists()
    assert {entry.name for entry in (run.folder / "checkpoints").iterdir()} == {
        "checkpoint-2",
        "checkpoint-3",
    }

    resumed = load_run(run.folder / "run.yaml", {})
    assert resumed == run
    perplexity, _ = quietly(resumed, resume=True)
    assert perplexity is not None
    log = json.loads((run.folder / "log.json").read_text())
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert_same(weights(run), weights(finished.run), 1e-5)
    assert perplexity.nats == pytest.approx(finished.perplexity.nats, rel=1e-4)


def test_an_interruption_is_not_the_end_of_an_epoch(prepared: Path, tmp_path: Path) -> None:
    epochs = dict.fromkeys(("eval_strategy", "save_strategy"), "epoch")
    run = small_run(prepared, tmp_path / "run", **epochs, max_steps=50)
    with contextlib.redirect_stdout(CtrlC("step 1: training loss")):
        assert train(run) is None
    assert [entry.name for entry in (run.folder / "checkpoints").iterdir()] == ["checkpoint-2"]
    log = json.loads((run.folder / "log.json").read_text())
    assert not any("eval_loss" in entry for entry in log)


def test_a_time_limit_evaluates_once(prepared: Path, tmp_path: Path) -> None:
    epochs = dict.fromkeys(("eval_strategy", "save_strategy"), "epoch")
    run = small_run(prepared, tmp_path / "run", **epochs, max_steps=50)
    quietly(replace(run, max_minutes=1e-9))
    log = json.loads((run.folder / "log.json").read_text())
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [1]


def test_a_second_ctrl_c_ends_it_at_once(prepared: Path, tmp_path: Path) -> None:
    run = small_run(prepared, tmp_path / "run")
    handler = signal.getsignal(signal.SIGINT)
    output = CtrlC("hi -> ", "Stopping after this step")
    with contextlib.redirect_stdout(output), pytest.raises(KeyboardInterrupt):
        train(run)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (run.folder / "model").exists()


def test_a_broken_checkpoint_is_not_resumed_from(
    finished: Finished, prepared: Path, tmp_path: Path
) -> None:
    run = small_run(prepared, tmp_path / "run", max_steps=2)
    quietly(run)
    halves = [run.folder / "checkpoints" / f"checkpoint-{number}" for number in (8, 9)]
    for half in halves:
        half.mkdir()
        (half / "model.safetensors").write_bytes(b"half")
    (halves[0] / "trainer_state.json").write_text('{"best_metric": ')
    perplexity, _ = quietly(small_run(prepared, run.folder), resume=True)
    assert perplexity is not None
    assert not any(half.exists() for half in halves)
    log = json.loads((run.folder / "log.json").read_text())
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("capsys")  # what libraries print stays in memory
def test_a_full_disk_while_training_is_explained(prepared: Path, tmp_path: Path) -> None:
    run = small_run(prepared, tmp_path / "run")
    with full_disk(45_000), pytest.raises(OSError, match=r"make room, then: .*run\.yaml --resume"):
        quietly(run)
    assert list((run.folder / "checkpoints").iterdir()) == []
    assert not (run.folder / "model").exists()


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_finished_run_is_not_touched(finished: Finished) -> None:
    before = snapshot(finished.run.folder)
    with pytest.raises(FileExistsError, match="go on with --resume, or replace with --overwrite"):
        train(finished.run)
    assert snapshot(finished.run.folder) == before


def test_overwrite_replaces_a_run(prepared: Path, tmp_path: Path) -> None:
    quietly(small_run(prepared, tmp_path / "run", max_steps=4))
    (tmp_path / "run" / "evaluation").mkdir()  # of the model that is replaced
    run = small_run(prepared, tmp_path / "run", max_steps=1, eval_steps=1, save_steps=1)
    assert quietly(run, overwrite=True)[0] is not None
    assert [entry.name for entry in (run.folder / "checkpoints").iterdir()] == ["checkpoint-1"]
    assert not (run.folder / "evaluation").exists()


def test_overwrite_replaces_nothing_but_runs(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"has no run\.yaml, so --overwrite does not"):
        train(small_run(prepared, tmp_path), overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_resuming_needs_a_checkpoint(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--resume: .*checkpoints holds no checkpoint to go on"):
        train(small_run(prepared, tmp_path / "run"), resume=True)
    assert not (tmp_path / "run").exists()


def test_a_time_limit_ends_it_with_a_model(prepared: Path, tmp_path: Path) -> None:
    run = replace(small_run(prepared, tmp_path / "run"), max_minutes=1e-9)
    perplexity, _ = quietly(run)
    assert perplexity is not None
    assert [entry.name for entry in (run.folder / "checkpoints").iterdir()] == ["checkpoint-1"]
    assert ChatSession.from_pretrained(run.folder / "model").reply("hi").text


def test_patience_ends_it(prepared: Path, tmp_path: Path) -> None:
    run = replace(small_run(prepared, tmp_path / "run", learning_rate=0.0), patience=1)
    quietly(run)
    log = json.loads((run.folder / "log.json").read_text())
    assert max(entry["step"] for entry in log if "loss" in entry) == 4


def test_smoothed_labels_and_half_sized_weights(prepared: Path, tmp_path: Path) -> None:
    run = small_run(prepared, tmp_path / "run", max_steps=2, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match=r"label_smoothing_factor is not possible with copy=True"):
        quietly(run)
    run.model["copy"] = False
    perplexity, _ = quietly(replace(run, save_dtype="bfloat16"))
    assert perplexity is not None
    assert {weight.dtype for weight in weights(run).values()} == {torch.bfloat16}
    assert ChatSession.from_pretrained(run.folder / "model").reply("hi").text


def test_files_are_prepared_into_the_run(tmp_path: Path) -> None:
    source = write_dialogues(tmp_path / "mine.jsonl", few_dialogues(train=8))
    run = replace(
        small_run(tmp_path, tmp_path / "run", max_steps=1, eval_steps=1, save_steps=1),
        data=[str(source)],
        prepare={"max_source_tokens": 40, "vocab_size": 300},
        source_weights={"mine": 2},
    )
    _, printed = quietly(run)
    prepared = load_prepared(run.folder / "data")
    assert f"300 tokens, {len(prepared['train'])} replies to learn" in printed
    assert ChatSession.from_pretrained(run.folder / "model").max_source_tokens == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_weights": {"yours": 2}}, "no source is named yours; there are mine."),
        ({"source_weights": {"mine": 0}}, "source_weights: no example is left to learn from."),
        ({"model": {"preset": "huge"}}, "model preset 'huge' is unknown; allowed: tiny"),
        ({"model": {"hidden_size": -1}}, "hidden_size=-1 is not possible; allowed: a whole number"),
        ({"model": {"hidden_size": 1.5}}, "hidden_size"),
        ({"model": {"attention": "magic"}}, "attention"),
        ({"trainer": {"eval_strategy": "sometimes"}}, "sometimes"),
        ({"trainer": {"lr_scheduler_type": "magic"}}, "magic"),
    ],
)
def test_impossible_runs_are_refused(
    prepared: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    run = replace(small_run(prepared, tmp_path / "run"), **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        quietly(run)
    assert not (tmp_path / "run" / "run.yaml").exists()
    assert not (tmp_path / "run" / "model").exists()


def test_one_dialogue_cannot_be_validated(tmp_path: Path) -> None:
    source = write_dialogues(tmp_path / "mine.jsonl", few_dialogues(train=1, held_out=0)[:1])
    run = replace(small_run(tmp_path, tmp_path / "run"), data=[str(source)])
    with pytest.raises(ValueError, match="one dialogue cannot be both learned and validated"):
        quietly(run)
    assert not (tmp_path / "run" / "run.yaml").exists()


def test_a_tenth_is_held_out_where_no_dialogue_is_for_validation(prepared: Path) -> None:
    data = load_prepared(prepared)
    assert with_validation(data)["validation"].to_list() == data["validation"].to_list()
    data["validation"] = data["validation"].select([])
    split = with_validation(data)
    assert split["train"].to_list() + split["validation"].to_list() == data["train"].to_list()
    numbers = [set(split[name]["dialogue"]) for name in ("train", "validation")]
    assert [len(found) for found in numbers] == [22, 2]
    assert not numbers[0] & numbers[1]
    assert split["test"].to_list() == data["test"].to_list()


def rows(*sources: str) -> Dataset:
    """One example of each dialogue."""
    numbers = list(range(len(sources)))
    return Dataset.from_dict({"source": list(sources), "dialogue": numbers, "number": numbers})


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({}, [0, 1, 2]),
        ({"a": 2}, [0, 0, 1, 2, 2]),
        ({"b": 0}, [0, 2]),
        ({"a": 0, "b": 3}, [1, 1, 1]),
    ],
)
def test_sources_are_seen_as_often_as_they_weigh(
    given: dict[str, float], numbers: list[int]
) -> None:
    assert sorted(weigh_sources(rows("a", "b", "a"), given, 0)["number"]) == numbers


def test_the_fraction_of_a_weight_draws_dialogues_by_the_seed() -> None:
    examples = rows(*"a" * 400, *"b" * 100)
    counts = Counter(weigh_sources(examples, {"a": 1.25}, 0)["number"])
    again = [number for number, count in counts.items() if count == 2]
    assert counts.total() == len(again) + 500
    assert 70 < len(again) < 130  # of 400 a quarter
    assert max(again) < 400
    assert Counter(weigh_sources(examples, {"a": 1.25}, 0)["number"]) == counts
    assert Counter(weigh_sources(examples, {"a": 1.25}, 1)["number"]) != counts


def test_all_replies_of_a_dialogue_are_drawn_together() -> None:
    examples = Dataset.from_dict({"source": ["a"] * 60, "dialogue": [n // 3 for n in range(60)]})
    drawn = Counter(weigh_sources(examples, {"a": 0.5}, 0)["dialogue"])
    assert 0 < len(drawn) < 20
    assert set(drawn.values()) == {3}


@pytest.mark.slow
def test_the_default_run_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`chatbot train` with no arguments: better than knowing how frequent each token is."""
    monkeypatch.chdir(tmp_path)
    assert main(["train"]) == 0
    data = load_prepared(Path("runs/tiny/data"))
    counts = Counter(token for labels in data["train"]["labels"] for token in labels)
    model, tokenizer = load_chatbot("runs/tiny/model")
    size = counts.total() + len(tokenizer)  # every token is counted once more than it was seen
    wanted = [token for labels in data["validation"]["labels"] for token in labels]
    unigram = math.exp(-sum(math.log((counts[t] + 1) / size) for t in wanted) / len(wanted))
    measured = measure_perplexity(model, tokenizer, data["validation"])
    assert measured.tokens == len(wanted)
    assert measured.per_token < unigram / 2
    replies = {ChatSession(model, tokenizer, seed=seed).reply("hello").text for seed in range(10)}
    assert len(replies) > 3
    assert yaml.safe_load(Path("runs/tiny/run.yaml").read_text())["output"] == "runs/tiny"
