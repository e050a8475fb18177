"""A newcomer's first hour: an export of WhatsApp, three commands, and the bot answers."""

import io
import json
import os
import random
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from chatbot.cli import main

TALK = {
    "Morning! Slept well?": "Like a stone, and you?",
    "Coffee at ten?": "Yes, the usual place",
    "Did you feed the cat?": "Twice, she tricked me",
    "What are you cooking tonight?": "Soup with lentils 🍲",
    "Can you bring bread?": "Rye or white?",
    "How was the exam?": "Harder than I thought",
    "Is it raining over there?": "Cats and dogs ☔",
    "When does your train leave?": "At half past six",
    "Did you see the match?": "Only the second half",
    "Shall we call mum?": "On Sunday, she is away",
    "Where are my keys?": "On the piano",
    "Who won?": "We did, 3 to 1",
    "Are you still at work?": "Leaving in five minutes",
    "Do you need anything?": "Milk, please",
    "How is the new flat?": "Small but sunny",
    "Thanks for yesterday!": "Any time 😊",
    "Good night": "Sleep tight",
}
# So narrow a model learns soon from larger first weights only.
SMALL = (
    "--model.hidden_size 64 --model.embedding_size 64 --model.initializer_range 0.3 "
    "--trainer.max_steps 300 --trainer.learning_rate 0.01 "
    "--trainer.per_device_train_batch_size 16 --trainer.eval_strategy no "
    "--trainer.save_strategy no --trainer.load_best_model_at_end false"
)


def export() -> str:
    """Some 150 messages of Ann and Ben, three times a day, as an Android phone writes them."""
    draw, start = random.Random(0), datetime(2023, 3, 12, 8)
    said = [(start, "Messages and calls are end-to-end encrypted. Tap to learn more.")]
    for time in range(18):
        at = start + timedelta(hours=8 * time)
        for question in draw.sample(list(TALK), 4):
            at += timedelta(minutes=draw.randint(0, 9))
            said += [(at, f"Ann: {question}"), (at, f"Ben: {TALK[question]}")]
        if time % 6 == 3:
            said.append((at, "Ann: <Media omitted>"))
    return "".join(f"{at:%d/%m/%Y, %H:%M} - {text}\n" for at, text in said)


QUESTIONS = "".join(f"{question}\n/reset\n" for question in TALK)


def replies(output: str) -> list[str]:
    """What the bot said to each question."""
    return [line for line in output.splitlines() if line != "Forgotten."]


def taught(said: list[str]) -> int:
    """How many of the replies are what Ben answered."""
    assert len(said) == len(TALK)
    return sum(one.lower() == other.lower() for one, other in zip(said, TALK.values(), strict=True))


def test_from_an_export_to_a_chat_with_three_commands(tmp_path: Path) -> None:
    chat = tmp_path / "WhatsApp Chat with Ben.txt"
    chat.write_text(export(), encoding="utf-8")
    commands = [
        ["prepare", chat.name, "--bot", "Ben", "--output", "data/mine"],
        ["train", "--data", "data/mine", "--output", "runs/mine", *SMALL.split()],
        ["chat", "runs/mine/model", "--preset", "precise"],
    ]
    for arguments in commands:
        done = subprocess.run(
            [sys.executable, "-m", "chatbot", *arguments],
            input=QUESTIONS,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
    assert taught(replies(done.stdout)) >= 5  # chance: one of 17


@pytest.mark.parametrize("level", ["word", "char"])
def test_words_and_characters(
    level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chat.txt").write_text(export(), encoding="utf-8")
    prepare = ["prepare", "chat.txt", "--bot", "Ben", "--output", "mine", "--level", level]
    assert main(prepare) == 0
    assert main(["train", "--data", "mine", "--output", "run", *SMALL.split()]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(QUESTIONS))
    capsys.readouterr()
    assert main(["chat", "run/model", "--preset", "precise"]) == 0
    said = replies(capsys.readouterr().out)
    assert taught(said) >= 5
    text = " ".join(TALK.values()).lower()
    parts = (lambda text: text.split()) if level == "word" else set
    assert {*parts(" ".join(said).lower())} <= {*parts(text)}


def test_prepared_data_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be written to is enough for all that reads it (root writes anyway)."""
    monkeypatch.chdir(tmp_path)
    Path("chat.txt").write_text(export(), encoding="utf-8")
    assert main(["prepare", "chat.txt:0.5", "--bot", "Ben", "--output", "data/mine"]) == 0
    entries = [Path("data"), *Path("data").rglob("*")]
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in entries}
    for path in entries:
        path.chmod(path.stat().st_mode & ~0o222)
    sizes = "--model.hidden_size 16 --model.embedding_size 16 --trainer.max_steps 2"
    commands = (
        f"train --data data/mine --output run --from-scratch {sizes}",
        "evaluate run/model data/mine --split train --output measured --limit 5",
        "doctor run/model data/mine --split train --limit 5",
        "read run/model run/model@greedy --data data/mine --split train --html page.html",
        "report data/mine --output facts",
    )
    for command in commands:
        status = main(command.split())
        assert status == 0 or (command[:6], status) == ("doctor", 1), capsys.readouterr().err
    for path in entries:
        path.chmod(path.stat().st_mode | 0o200)
    record = json.loads(Path("run/run.json").read_text("utf-8"))
    assert record["data"]["data"]["weights"] == {"chat": 0.5}
    after = [Path("data"), *Path("data").rglob("*")]
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in after} == before
