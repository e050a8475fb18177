"""The command: what each job does, and that bad input is told in one line with status 2."""

import gzip
import io
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from chat_helpers import few_dialogues, write_dialogues
from test_checkpoints import contents, full_disk

import chatbot
from chatbot.chat import FALLBACK
from chatbot.cli import main
from chatbot.data import Cleaning, load_prepared

SETTINGS = (
    "--model.embedding_size 16 --model.hidden_size 16 --prompts [hi] --trainer.max_steps 2 "
    "--trainer.eval_strategy steps --trainer.eval_steps 2 "
    "--trainer.save_strategy steps --trainer.save_steps 2"
)
TINY = SETTINGS.split()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dialogues(tmp_path_factory.mktemp("source") / "mine.jsonl", few_dialogues())


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `chatbot prepare`. Nobody changes it."""
    folder = tmp_path_factory.mktemp("prepared") / "mine"
    assert main(["prepare", str(source), "--output", str(folder)]) == 0
    return folder


def complaint(capsys: pytest.CaptureFixture[str], arguments: Sequence[object]) -> str:
    """What the command says on stderr when it refuses: one line, and status 2."""
    capsys.readouterr()
    try:
        status: object = main([str(argument) for argument in arguments])
    except SystemExit as exit:  # argparse, which says how the command is used as well
        status = exit.code
    assert status == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if re.match(r"chatbot [\w-]+: |chatbot: ", line)]
    assert lines == error.splitlines()[-1:]  # other libraries may have warned before
    return lines[0]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"chatbot {chatbot.__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    commands = ("chat", "serve", "prepare", "report", "train-tokenizer", "train", "evaluate")
    for command in (*commands, "read", "doctor", "export"):
        assert re.search(rf"^ +{command}(  |$)", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command"),
        (["sing"], "invalid choice: 'sing'"),
        (["chat", "--loud"], "unknown arguments: --loud"),
        (["chat", "--pre", "greedy"], "unknown arguments: --pre"),
        (["chat", "--seed", "x"], "invalid int value: 'x'"),
        (["prepare", "--output", "x"], "the following arguments are required: sources"),
        (["prepare", "x.jsonl"], "the following arguments are required: --output"),
        (["prepare", "x.jsonl", "--output", "y", "--level", "z"], "invalid choice: 'z'"),
        (["evaluate", "x"], "the following arguments are required: data"),
        (["evaluate", "x", "y", "--split", "all"], "invalid choice: 'all'"),
        (["chat", "--min-confidence", "x"], "invalid float value: 'x'"),
        (["doctor", "x"], "the following arguments are required: data"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in complaint(capsys, arguments)


def test_a_chat_through_a_pipe(
    tiny_chatbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answers() -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
        assert main(["chat", str(tiny_chatbot_folder), "--seed", "5", "--preset", "careful"]) == 0
        return capsys.readouterr().out

    first = answers()
    assert first.strip()
    assert answers() == first


def test_a_chat_that_is_never_sure_enough(
    tiny_chatbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(*options: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
        assert main(["chat", str(tiny_chatbot_folder), *options]) == 0
        return capsys.readouterr().out

    assert answer("--min-confidence", "1") == f"{FALLBACK}\n"
    assert answer("--min-confidence", "1", "--fallback", "Ask my boss.") == "Ask my boss.\n"
    assert FALLBACK not in answer()
    with pytest.raises(SystemExit):
        main(["chat", "--help"])
    assert FALLBACK in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("seed", ["-1", str(10**30)])
def test_any_seed_will_do_or_is_refused(
    tiny_chatbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seed: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert main(["chat", str(tiny_chatbot_folder), "--seed", seed]) in (0, 2)


def test_an_unknown_preset_is_refused(
    tiny_chatbot_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, ["chat", tiny_chatbot_folder, "--preset", "loud"])
    assert said.startswith("chatbot chat: generation preset 'loud' is unknown; allowed: lively, ")


@pytest.mark.parametrize("command", ["chat", "serve", "evaluate", "doctor"])
def test_bad_model_folders_are_refused(
    tiny_chatbot_folder: Path,
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    def said(folder: Path) -> str:
        data = [prepared] if command in ("evaluate", "doctor") else []
        return complaint(capsys, [command, folder, *data])

    assert said(tmp_path / "nowhere").endswith("nowhere: no such model folder.")
    assert "has no config.json: not a model folder" in said(tmp_path)
    folder = shutil.copytree(tiny_chatbot_folder, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in said(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    assert "a model of type 'gpt2'; allowed: 'rnn_seq2seq'" in said(folder)
    (folder / "config.json").write_text("not json\n" * 3)
    assert "config.json" in said(folder)


def test_from_a_file_to_a_chat(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command as the one before it prints it."""
    data = tmp_path / "folder with a space" / "mine"
    assert main(["prepare", str(source), "--output", str(data), "--vocab-size", "400"]) == 0
    *summary, hint = capsys.readouterr().out.splitlines()
    assert summary[0].startswith("train: 24 dialogues, ")
    assert summary[-2:] == ["dropped: nothing", "400 tokens"]
    words = shlex.split(hint.removeprefix("Train on it: "))
    assert words == ["chatbot", "train", "--data", str(data)]

    run = tmp_path / "run"
    assert main([*words[1:], "--output", str(run), *TINY]) == 0
    hint = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(hint.removeprefix("Chat with it: "))
    assert words == ["chatbot", "chat", str(run / "model")]

    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert main(words[1:]) == 0
    assert capsys.readouterr().out.strip()

    assert main(["evaluate", str(run / "model"), str(data), "--split", "validation"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.partition(":")[0] for row in rows[:2]] == ["mine", "all"]
    assert re.fullmatch(r"all: [\d.]+ per token, [\d.,e+]+ per word \(\d+ replies\)", rows[1])
    interval = r" +[\d.]+ \[[\d.]+, [\d.]+\]"
    for name, row in zip(("token", "word", "byte"), rows[2:], strict=False):
        assert re.fullmatch(f"perplexity per {name}{interval}", row)
    assert re.fullmatch(f"accuracy{interval}", rows[-1])

    parts = ["evaluate", str(run / "model"), str(data), "--split", "validation", "--limit", "4"]
    whole = [*parts, "--output", str(tmp_path / "whole")]
    assert main([*whole, "--decoding", "greedy,precise"]) == 0
    assert (tmp_path / "whole" / "predictions-precise-train.jsonl").is_file()
    assert "precise, BLEU: " in capsys.readouterr().out
    # against itself, as a model and as the folder of its evaluation
    for other in (run / "model", tmp_path / "whole"):
        options = ["--overwrite", "--decoding", "greedy", "--compare", str(other)]
        assert main([*parts, "--output", str(tmp_path / "again"), *options]) == 0
        *_, perplexity, f1, bleu, chrf, hint = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"perplexity per word: .*; gap 1\.000 .*, p 1\.000", perplexity)
        for name, row in (("F1", f1), ("BLEU", bleu), ("chrF", chrf)):
            assert re.fullmatch(rf"greedy: {name}: (.+) against \1; gap 0\.000.*, p 1\.000", row)
        assert hint == f"Open it: {tmp_path / 'again' / 'report.html'}"


def test_a_run_in_yaml_and_its_refusals(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = tmp_path / "mine.yaml"
    config.write_text(f"data: {prepared}\noutput: {run}\nmodel: {{attention: dot}}\n")
    assert main(["train", str(config), *TINY]) == 0
    model_config = json.loads((run / "model" / "config.json").read_text())
    assert (model_config["attention"], model_config["hidden_size"]) == ("dot", 16)
    before = contents(run)
    assert "go on with --resume, or replace with --overwrite" in complaint(
        capsys, ["train", config, *TINY]
    )
    assert contents(run) == before
    assert main(["train", str(config), "--overwrite", *TINY, "--model.attention", "none"]) == 0
    model_config = json.loads((run / "model" / "config.json").read_text())
    assert model_config["attention"] == "none"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file or folder"),
        (["--modl.attention", "dot"], "unknown key 'modl'; did you mean 'model'?"),
        (["--output"], "--output: a value is missing"),
        (["--model.hidden_size", "-1"], "hidden_size=-1 is not possible; allowed: a whole number"),
        (["--model.attention", "magic"], "attention"),
        (["--model.preset", "huge"], "model preset 'huge' is unknown; allowed: tiny, small, base"),
        (["--trainer.num_train_epochs", "-1"], "trainer.num_train_epochs=-1 is not possible"),
        (["--trainer.eval_strategy", "sometimes"], "sometimes"),
        (["--prepare.vocab_size", "-5"], "vocab_size=-5"),
        (["--resume"], "holds no checkpoint to go on from"),
        (["--output", "file/run"], "file/run"),
        (["not.yaml"], "not.yaml is not YAML"),
    ],
)
def test_trainings_that_are_refused(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("not.yaml").write_text("data: [a\nb: [\n")
    defaults = [*TINY, *([] if "--data" in arguments else ["--data", str(source)])]
    is_config = arguments[0].endswith(".yaml")  # which comes first; of two options the last wins
    said = complaint(
        capsys, ["train", *(arguments + defaults if is_config else defaults + arguments)]
    )
    assert said.startswith("chatbot train: ")
    assert message in said
    assert not Path("runs/tiny/model").exists()
    assert not Path("runs/tiny/run.yaml").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vocab-size", "-5"], "vocab_size=-5: level 'bpe' needs at least 262"),
        (["--vocab-size", "50000"], "vocab_size=50000: with level 'bpe'"),
        (["--max-source-tokens", "-1"], "max_source_tokens=-1"),
        (["--max-target-tokens", "0"], "max_target_tokens=0"),
        (["--processes", "0"], "num_proc=0"),
        (["--tokenizer", "nowhere"], "tokenizer=nowhere: no such folder"),
    ],
)
def test_preparations_that_are_refused(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    said = complaint(capsys, ["prepare", source, "--output", tmp_path / "out", *options])
    assert said.startswith("chatbot prepare: ")
    assert message in said
    assert list(tmp_path.iterdir()) == []


BAD_DATA = {
    "missing.jsonl": (None, "no such file or folder"),
    "empty.jsonl": (b"", "the file is empty"),
    "text.jsonl": (b"hello\n", "text.jsonl:1: not JSON"),
    "broken.jsonl.gz": (gzip.compress(b"hello" * 99)[:20], "not a whole gzip file"),
    "chats.csv": (b"a,b\n1,2\n", "chats.csv:1: not a file of dialogues, with columns a, b"),
    "role.jsonl": (
        b'{"messages": [{"role": "owl", "content": "hi"}]}',
        "role.jsonl:1: messages[0].role is 'owl'; allowed: user, assistant",
    ),
    "short.jsonl": (b'{"messages": [{"role": "user", "content": "hi"}]}', "dropped: 1 one turn"),
}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (name, command)
        for name in BAD_DATA
        for command in ("prepare", "train-tokenizer", "train")
        if (name, command) != ("short.jsonl", "train-tokenizer")  # one turn has words to learn
    ],
)
def test_bad_data_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    content, message = BAD_DATA[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    data = ["--data", tmp_path / name] if command == "train" else [tmp_path / name]
    said = complaint(capsys, [command, *data, "--output", tmp_path / "out"])
    assert message in said
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name for path in tmp_path.iterdir()} <= {name, "out"}


@pytest.mark.parametrize("command", ["prepare", "train-tokenizer"])
def test_an_output_is_replaced_only_when_asked(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = [command, str(source), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--vocab-size", "300"]) == 0
    assert "300 tokens" in capsys.readouterr().out
    before = contents(tmp_path)
    assert "exists; replace it with --overwrite" in complaint(capsys, arguments)
    assert contents(tmp_path) == before
    assert main([*arguments, "--vocab-size", "310", "--overwrite"]) == 0
    assert "310 tokens" in capsys.readouterr().out
    # what a command did not write, it does not replace
    for path in (tmp_path / "out").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    assert "so --overwrite does not replace it" in complaint(capsys, [*arguments, "--overwrite"])
    # a file stands where a folder is needed
    arguments[-1] = str(tmp_path / "out" / "thesis.txt" / "out")
    assert "cannot write in" in complaint(capsys, arguments)
    assert contents(tmp_path) == {"out/thesis.txt": b"years of work"}


@pytest.mark.parametrize("command", ["prepare", "train-tokenizer"])
@pytest.mark.parametrize("size", [0, 1_000])
def test_a_full_disk_leaves_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, size: int
) -> None:
    with full_disk(size):
        said = complaint(capsys, [command, source, "--output", tmp_path / "out"])
    assert str(tmp_path / "out") in said
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_of_its_own(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tmp_path / "tokenizer"
    command = ["train-tokenizer", str(source), "--output", str(tokenizer)]
    assert main([*command, "--level", "char", "--keep-case"]) == 0
    size = int(re.search(r"(\d+) tokens", capsys.readouterr().out)[1])  # type: ignore[index]
    data = tmp_path / "data"
    command = ["prepare", str(source), "--output", str(data), "--tokenizer", str(tokenizer)]
    assert main(command) == 0
    assert f"{size:,} tokens" in capsys.readouterr().out
    assert load_prepared(data)["train"][0]["labels"][-1] == 3  # <end>


def test_a_model_is_measured_on_its_own_tokens_only(
    tiny_chatbot_folder: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, ["evaluate", tiny_chatbot_folder, prepared])
    assert "was prepared with another tokenizer" in said


def test_measuring_needs_prepared_data(
    tiny_chatbot_folder: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in (source, source.parent, source.parent / "nowhere"):
        said = complaint(capsys, ["evaluate", tiny_chatbot_folder, data])
        assert "has no preparation.json: not a folder of `chatbot prepare`." in said


def test_what_evaluation_refuses(
    tiny_chatbot_folder: Path,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["evaluate", tiny_chatbot_folder, prepared]
    said = complaint(capsys, [*command, "--compare", tmp_path])
    assert said == "chatbot evaluate: --compare is not possible without --output"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "results.json").write_text('{"limit": 5}', "utf-8")
    said = complaint(capsys, [*command, "--output", tmp_path / "old"])
    assert said.endswith("old exists; replace it with --overwrite")
    said = complaint(capsys, [*command, "--output", tmp_path / "x", "--compare", tmp_path / "old"])
    assert said.endswith("old was made with --limit 5: give the same")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name[0] == "s" else name)
    said = complaint(capsys, [*command, "--output", tmp_path / "x"])
    assert said.endswith("--output needs sacrebleu: install the extra `evaluate`")
    assert not (tmp_path / "x").exists()


def test_a_blind_reading(
    tmp_path: Path,
    prepared: Path,
    tiny_chatbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(tiny_chatbot_folder)
    names = [model, f"{model}@greedy"]
    command = ["read", *names, "--data", str(prepared), "--split", "train", "--count", "2"]
    assert main([*command, "--html", "page.html"]) == 0
    assert capsys.readouterr().out == "Open it: page.html\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))  # and then the input ends
    assert main(command) == 0
    assert f"{model}@lively preferred to {model}@greedy: " in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert " of 2, interval " in told
    assert main(["read", "--answers", "sheet.jsonl"]) == 0
    assert told.endswith(capsys.readouterr().out.rstrip("\n"))

    said = complaint(capsys, ["read", *names[::-1], "--data", prepared])
    assert said.endswith(f"compares {model}@lively and {model}@greedy; name another --output")
    for arguments in ([], [names[0], "--data", prepared], names):
        said = complaint(capsys, ["read", *arguments])
        assert said == "chatbot read: two models and --data are needed, or --answers"
    assert "page.html is no sheet" in complaint(capsys, ["read", "--answers", "page.html"])


def scripts() -> list[Path]:
    return sorted((Path(__file__).resolve().parent.parent / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.stem)
def test_every_script_helps(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(script.parent)  # as `python scripts/...` does
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(script), run_name="__main__")
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_scripts_are_the_commands(
    source: Path,
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = repository / "scripts" / "prepare_data.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(source), "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(script), run_name="__main__")
    assert exit.value.code == 0
    assert load_prepared(tmp_path / "out")


def test_every_step_of_cleaning_has_an_option(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def stop(*arguments: object, clean: dict[str, object], **options: object) -> None:
        given.update(clean)
        raise ZeroDivisionError

    monkeypatch.setattr("chatbot.data.prepare", stop)
    command = ["prepare", str(source), "--output", str(tmp_path / "out")]
    with pytest.raises(ZeroDivisionError):
        main(command)
    assert Cleaning.of(given) == Cleaning()
    assert given.keys() == {entry.name for entry in fields(Cleaning)}
    switches = "--no-html --no-near-duplicates --profanity --languages en,de --max-reply-count 5"
    limits = "--max-reply-entropy 2.5 --max-reply-words 30"
    (tmp_path / "voices").write_text("my name\n\ni live\n")
    limits += f" --mute {tmp_path / 'voices'} --both-sides tea,coffee"
    with pytest.raises(ZeroDivisionError):
        main([*command, *switches.split(), *limits.split()])
    assert Cleaning.of(given) == Cleaning(
        html=False,
        near_duplicates=False,
        profanity=True,
        languages=("en", "de"),
        max_reply_count=5,
        max_reply_entropy=2.5,
        max_reply_words=30,
        mute=("my name", "i live"),
        both_sides=("tea", "coffee"),
    )


def test_a_report_is_written_where_it_is_wanted(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(prepared), "--output", str(tmp_path / "new/report")]) == 0
    page = tmp_path / "new/report/report.html"
    assert capsys.readouterr().out == f"Open it: {page}\n"
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert json.loads(page.with_suffix(".json").read_text("utf-8"))["vocabulary"]
    assert "not a folder of `chatbot prepare`" in complaint(capsys, ["report", tmp_path])
