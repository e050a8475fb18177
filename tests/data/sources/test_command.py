"""The options of `chatbot prepare` and `train-tokenizer` that say how sources are read."""

import json
from pathlib import Path
from typing import Any

import pytest
from source_helpers import write

from chatbot.cli import main

EXPORT = "".join(
    f"{day}/12/2023, 21:0{minute} - {name}: {text} {day}\n"
    for day in range(10, 20)
    for minute, name, text in ((1, "Ann", "Hungry?"), (2, "Ben", "Yes!"), (3, "Ann", "So am I."))
)


def dialogues(folder: Path) -> list[list[dict[str, Any]]]:
    """What `prepare` kept, whatever its split."""
    lines = [line for path in folder.glob("dialogues/*") for line in path.read_text().splitlines()]
    return [json.loads(line)["messages"] for line in lines]


def test_an_export_of_whatsapp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = str(write(tmp_path / "WhatsApp Chat with Ben.txt", EXPORT))
    for options, said in (([], {"Yes!"}), (["--bot", "Ann"], {"Hungry?", "So am I."})):
        output = tmp_path / f"out{len(options)}"
        assert main(["prepare", chat, "--output", str(output), *options]) == 0
        assert "Train on it: chatbot train --data" in capsys.readouterr().out
        turns = [message for messages in dialogues(output) for message in messages]
        replies = {m["content"][:-3] for m in turns if m["role"] == "assistant"}
        assert replies == said
        assert list(json.loads((output / "preparation.json").read_text())["files"]) == [chat]


def test_columns_format_and_encoding(tmp_path: Path) -> None:
    rows = "".join(f"{n},frage {n},käse {n}\n" for n in range(20))
    table = str(write(tmp_path / "a.txt", f"id,q,a\n{rows}".encode("cp1252")))
    columns = ["--column", "context=q", "--column", "reply=a"]
    options = ["--format", "table", "--encoding", "cp1252", *columns]
    assert main(["prepare", table, "--output", str(tmp_path / "out"), *options]) == 0
    assert dialogues(tmp_path / "out")[0][-1]["content"].startswith("käse")
    assert main(["train-tokenizer", table, "--output", str(tmp_path / "tok"), *options]) == 0
    assert "Ã¤se" in (tmp_path / "tok/tokenizer.json").read_text()  # the bytes of "äse"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--column", "answer"], "--column answer: allowed: ROLE=NAME, as in --column reply=ans"),
        (["--column", "answer=a"], "columns: 'answer' is unknown; allowed: context, reply, spea"),
        (["--format", "chat"], "format='chat': allowed are messages, sharegpt, table, whatsapp,"),
        (["--encoding", "x"], "encoding='x': no such encoding; allowed: utf-8"),
        (["--bot", "Bea"], "nobody is called 'Bea' (bot); allowed: Ann, Ben"),
    ],
)
@pytest.mark.parametrize("command", ["prepare", "train-tokenizer"])
def test_options_that_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: list[str],
    message: str,
) -> None:
    chat = str(write(tmp_path / "chat.txt", EXPORT))
    assert main([command, chat, "--output", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["chat.txt"]
