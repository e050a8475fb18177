"""run.json, a training of so many minutes, and continuing a trained model."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_helpers import few_dialogues, sample_dialogues, write_dialogues
from safetensors.torch import load_file
from test_training import quietly, small_run

import chatbot
from chatbot.checkpoints import load_chatbot
from chatbot.cli import main
from chatbot.data import load_prepared, prepare
from chatbot.training import steps_within, train
from chatbot.training_callbacks import StepClock
from chatbot.training_data import prepared_data
from chatbot.training_run import CONTINUED_DEFAULTS, TrainingRun, load_run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare([write_dialogues(folder / "mine.jsonl", few_dialogues())], folder / "prepared")
    return folder / "prepared"


def record_of(run: TrainingRun) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "run.json").read_text())
    return found


def learned_steps(run: TrainingRun) -> list[int]:
    log = json.loads((run.folder / "log.json").read_text())
    return [entry["step"] for entry in log if "loss" in entry]


def test_a_run_records_what_it_was_made_of(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run(prepared, tmp_path / "run", max_steps=2, seed=7)
    (tmp_path / "mine.yaml").write_text(json.dumps(vars(run)))
    assert main(["train", str(tmp_path / "mine.yaml"), "--patience", "9"]) == 0
    record = record_of(run)
    assert record["config"] == {**vars(run), "patience": 9}
    assert (record["seed"], record["threads"]) == (7, torch.get_num_threads())
    assert record["versions"]["chatbot"] == chatbot.__version__
    assert record["versions"]["torch"] == torch.__version__
    assert record["licences"] == {"mine": "unknown"}
    sources = json.loads((prepared / "preparation.json").read_text())["files"]
    assert record["data"]["data"]["sources"] == sources
    assert {name.split("/")[0] for name in record["data"]["data"]["prepared"]} == {
        "test", "tokenizer", "train", "validation",
    }  # fmt: skip
    assert record["hardware"]["cores"] >= 1
    (session,) = record["sessions"]
    assert shlex.split(session["command"])[1:] == [
        "train", str(tmp_path / "mine.yaml"), "--patience", "9",
    ]  # fmt: skip
    assert (session["end"], session["step"]) == ("finished", 2)
    assert session["seconds"] > 0

    assert main(["train", str(run.folder / "run.yaml"), "--resume"]) == 0
    assert [each["step"] for each in record_of(run)["sessions"]] == [2, 2]
    capsys.readouterr()


def test_a_run_does_not_go_on_with_other_data(prepared: Path, tmp_path: Path) -> None:
    other = write_dialogues(tmp_path / "mine.jsonl", few_dialogues(train=12))
    prepare([other], tmp_path / "other")
    run = small_run(prepared, tmp_path / "run", max_steps=2)
    quietly(run)
    with pytest.raises(ValueError, match=r"--resume: data=\['.*other'\] is not possible; allowed"):
        quietly(replace(run, data=[str(tmp_path / "other")]), resume=True)
    with pytest.raises(
        ValueError, match=r"--resume: model=.* is not possible; allowed: \{.*: 16\}"
    ):
        quietly(replace(run, model={**run.model, "hidden_size": 8}), resume=True)
    for split in ("train", "validation"):
        shutil.rmtree(prepared / split)
        shutil.copytree(tmp_path / "other" / split, prepared / split)
    with pytest.raises(ValueError, match="the data is not that which the run began with"):
        quietly(run, resume=True)


def test_minutes_become_steps_once(prepared: Path, tmp_path: Path) -> None:
    run = replace(small_run(prepared, tmp_path / "run"), minutes=1e-6)
    quietly(run)  # the time is over before the first step
    steps = record_of(run)["steps"]
    assert (steps["minutes"], steps["max_steps"], learned_steps(run)) == (1e-6, 1, [1])
    assert 0 < steps["seconds_per_step"] < 60

    record = record_of(run)
    record["steps"]["max_steps"] = 3  # as if this machine had been faster then
    (run.folder / "run.json").write_text(json.dumps(record))
    _, printed = quietly(run, overwrite=True)
    assert "3 steps for 1e-06 minutes\n" in printed
    assert "Measuring" not in printed
    assert learned_steps(run) == [1, 2, 3]
    quietly(run, resume=True)
    assert learned_steps(run) == [1, 2, 3]

    quietly(replace(run, minutes=2e-6), overwrite=True)  # another run: measured anew
    assert record_of(run)["steps"]["max_steps"] == 1


def test_evaluations_take_their_share_of_the_minutes() -> None:
    assert steps_within(100, step=1, evaluation=5, every=10) == 66  # and 6.6 evaluations: 33 s
    assert steps_within(100, step=1, evaluation=5, every=0.25) == 80  # and 4 evaluations: 20 s
    assert steps_within(10, step=1, evaluation=5, every=0.25) == 1


def test_measuring_changes_no_weight(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = small_run(prepared, tmp_path / "plain", max_steps=2)
    timed = replace(small_run(prepared, tmp_path / "timed", max_steps=9), minutes=1.0)
    monkeypatch.setattr("chatbot.training._choose_steps", choosing(2))
    for run in (plain, timed):
        quietly(run)
    found, expected = (
        load_file(run.folder / "model" / "model.safetensors") for run in (timed, plain)
    )
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def choosing(steps: int) -> Any:
    """Measure in earnest, and choose this number."""
    from chatbot.training import _choose_steps

    def chosen(*args: Any) -> dict[str, float]:
        return {**_choose_steps(*args), "max_steps": steps}

    return chosen


def test_the_first_steps_are_not_timed() -> None:
    clock = StepClock()
    clock.ends = [0.0, 50.0, 100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
    assert clock.seconds_per_step == 1.0


def mine(folder: Path, dialogues: int = 30) -> str:
    return str(write_dialogues(folder / "mine.jsonl", sample_dialogues()[:dialogues]))


def continued(tiny_chatbot_folder: Path, folder: Path, **fields: Any) -> TrainingRun:
    trainer = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 4}
    return TrainingRun(
        data=[mine(folder)],
        output=str(folder / "run"),
        start=str(tiny_chatbot_folder),
        trainer=trainer,
        **fields,
    )


@pytest.fixture(autouse=True)
def short_talks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A continued model rehearses less than it does in earnest."""
    monkeypatch.setattr("chatbot.training.OPENINGS", 8)


def test_a_model_is_continued(tiny_chatbot_folder: Path, tmp_path: Path) -> None:
    run = continued(tiny_chatbot_folder, tmp_path)
    run.trainer["learning_rate"] = 0.0
    _, printed = quietly(run)
    before, tokenizer = load_chatbot(tiny_chatbot_folder)
    after, own = load_chatbot(run.folder / "model")
    assert own.get_vocab() == tokenizer.get_vocab()
    assert after.config.hidden_size == before.config.hidden_size == 16
    weights = dict(before.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in after.named_parameters())
    data = load_prepared(run.folder / "data")
    learned = sum(map(len, data.values()))  # a question held out would not be answered
    samples = load_prepared(run.folder / "samples")["validation"]
    assert f"{learned:,} replies to learn, {len(samples)} to validate" in printed
    assert record_of(run)["licences"] == {"mine": "unknown"}


def test_a_continued_run_may_hold_out_and_rehearse_nothing(
    tiny_chatbot_folder: Path, tmp_path: Path
) -> None:
    run = continued(tiny_chatbot_folder, tmp_path, rehearse=0, hold_out=True)
    assert run.noise == 0
    _, printed = quietly(run)
    train_part = load_prepared(run.folder / "data")["train"]
    assert f"{len(train_part)} replies to learn" in printed
    assert not (run.folder / "talks").exists()


def test_few_examples_are_seen_for_a_least_number_of_steps(
    tiny_chatbot_folder: Path, tmp_path: Path
) -> None:
    run = continued(tiny_chatbot_folder, tmp_path, least_steps=60)
    run.trainer |= {"max_steps": -1, "num_train_epochs": 1, "eval_strategy": "no"}
    run.trainer |= {"save_strategy": "no"}
    quietly(run)
    assert record_of(run)["sessions"][0]["step"] == 60
    run.least_steps = 1
    quietly(run, overwrite=True)
    assert record_of(run)["sessions"][0]["step"] < 60


def test_a_continued_run_resumes(tiny_chatbot_folder: Path, tmp_path: Path) -> None:
    run = continued(tiny_chatbot_folder, tmp_path)
    run.trainer |= {"save_strategy": "steps", "save_steps": 1}
    quietly(run)
    expected = load_file(run.folder / "model" / "model.safetensors")
    checkpoint = run.folder / "checkpoints" / "checkpoint-2"
    (checkpoint / "optimizer.pt").unlink()
    _, printed = quietly(load_run(run.folder / "run.yaml", {}), resume=True)
    assert "checkpoint-2: optimizer.pt is missing" in printed
    found = load_file(run.folder / "model" / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_questions_that_differ_in_a_word_are_all_taught(
    tiny_chatbot_folder: Path, tmp_path: Path
) -> None:
    places = ["pool", "library", "bakery", "museum", "campsite", "cinema", "zoo", "farm", "gym"]
    faq = [
        [
            {
                "role": "user",
                "content": f"please tell me, when does the old {place} open on sunday?",
            },
            {"role": "assistant", "content": f"on sundays the old {place} opens at nine."},
        ]
        for place in places
    ]
    run = continued(tiny_chatbot_folder, tmp_path)
    write_dialogues(tmp_path / "mine.jsonl", faq)
    folders = prepared_data(run, load_chatbot(tiny_chatbot_folder))
    assert sum(map(len, load_prepared(folders["data"]).values())) == len(faq)


def test_what_a_run_starts_from(prepared: Path, tmp_path: Path) -> None:
    shipped = TrainingRun(data=[mine(tmp_path)])
    assert (shipped.start, shipped.hold_out) == ("shipped", False)
    assert shipped.trainer == CONTINUED_DEFAULTS
    _, tokenizer = load_chatbot()
    prepare([mine(tmp_path)], tmp_path / "ours", tokenizer=tokenizer)
    assert TrainingRun(data=[str(tmp_path / "ours")]).start == "shipped"
    scratch: list[dict[str, Any]] = [
        {},
        {"data": [str(prepared)]},  # it has a vocabulary of its own
        {"data": [mine(tmp_path)], "model": {"preset": "tiny"}},
        {"data": [mine(tmp_path)], "prepare": {"level": "char"}},
        {"data": [mine(tmp_path)], "start": "scratch"},
    ]
    for fields in scratch:
        run = TrainingRun(**fields)
        assert (run.start, run.hold_out) == ("scratch", True), fields


def test_the_command_line_says_what_to_start_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[TrainingRun] = []
    monkeypatch.setattr("chatbot.training.train", lambda run, **options: runs.append(run))
    data = ["--data", mine(tmp_path)]
    for options in ([], ["--from", "elsewhere"], ["--from-scratch"], ["--start", "shipped"]):
        main(["train", *data, *options])
    assert [run.start for run in runs] == ["shipped", "elsewhere", "scratch", "shipped"]
    with pytest.raises(SystemExit):
        main(["train", "--from", "elsewhere", "--from-scratch"])
    capsys.readouterr()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {"hidden_size": 8}}, "which keeps its own sizes; allowed: start=scratch"),
        ({"rehearse": -1}, "rehearse=-1 is not possible; allowed: a number of at least 0"),
        ({"noise": 1.0}, "noise=1.0 is not possible; allowed: from 0 to below 1, or null"),
        ({"least_steps": 0.5}, "least_steps=0.5 is not possible; allowed: 0 or more"),
        ({"hold_out": "no"}, "hold_out='no' is not possible; allowed: true, false"),
        ({"minutes": 0}, "minutes=0 is not possible; allowed: a number above 0, or null"),
        ({"start": "scratch", "hold_out": False}, "hold_out=False is not possible with start='sc"),
        ({"trainer": {"gradient_accumulation_steps": 0}}, "steps=0 is not possible; .* at least 1"),
        ({"start": 5}, "start=5 is not possible; allowed: scratch, shipped, or a folder"),
    ],
)
def test_impossible_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingRun(**{"start": "shipped", **fields})


def test_a_continued_model_reads_with_its_own_tokenizer(prepared: Path, tmp_path: Path) -> None:
    run = TrainingRun(data=[str(prepared)], start="shipped", output=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="another tokenizer; allowed: its sources, or start=scr"):
        train(run)
    run = TrainingRun(data=[mine(tmp_path)], start=str(tmp_path), output=str(tmp_path / "run2"))
    with pytest.raises(FileNotFoundError, match="not a model folder"):
        train(run)
