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
        printed, bot = capsys.readouterr().out, "Ann" if options else "Ben"
        assert "Train on it: chatbot train --data" in printed
        assert f"the bot: {bot} in WhatsApp Chat with Ben (another: --bot NAME)\n" in printed
        turns = [message for messages in dialogues(output) for message in messages]
        replies = {m["content"][:-3] for m in turns if m["role"] == "assistant"}
        assert replies == said
        assert list(json.loads((output / "preparation.json").read_text())["files"]) == [chat]


def test_who_the_bot_is_in_each_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only where names were chosen from, and no endless list of them."""
    talks = "".join(f"{n},u{n},hi {n}\n{n},b{n},hello {n}\n" for n in range(5))
    write(tmp_path / "talks.csv", f"dialogue,speaker,text\n{talks}")
    write(tmp_path / "two.csv", f"dialogue,speaker,text\n{talks[:44]}")
    write(tmp_path / "lines.txt", "salve\nave\n")
    command = ["prepare", str(tmp_path / "lines.txt"), str(tmp_path), "--output"]
    assert main([*command, str(tmp_path / "out")]) == 0
    line = "the bot: b0, b1 and others in talks; b0, b1 in two (another: --bot NAME)\n"
    assert line in capsys.readouterr().out
    facts = json.loads((tmp_path / "out/preparation.json").read_text())
    assert facts["bots"] == {
        "lines": {"lines": []},
        "talks": {"talks": ["b0", "b1", "b2"]},
        "two": {"two": ["b0", "b1"]},
    }
    assert main([*command, str(tmp_path / "out"), "--overwrite", "--max-source-tokens", "9"]) == 0
    assert line in capsys.readouterr().out  # dialogues are taken over
    assert main(["prepare", str(tmp_path / "lines.txt"), "--output", str(tmp_path / "plain")]) == 0
    assert "the bot:" not in capsys.readouterr().out


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
