"""The `chatbot` command: one subcommand a job.

    chatbot chat                        talk in the terminal, with the shipped model
    chatbot serve                       talk in the browser
    chatbot prepare mine.jsonl --output data/mine
    chatbot report data/mine
    chatbot train scripts/configs/tiny.yaml --data data/mine
    chatbot evaluate runs/tiny/model data/mine
    chatbot read runs/tiny/model runs/other/model --data data/mine
    chatbot doctor runs/tiny/model data/mine
    chatbot export runs/tiny/model --to onnx --output runs/tiny/onnx
    chatbot push runs/tiny/model owner/name --space
    chatbot push-data my_conversations owner/name

Each imports what it needs when it runs: `chatbot --help` answers at once.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

DISTRIBUTION = "rnn-seq2seq-chatbot"
LEVELS = ("bpe", "unigram", "word", "char")
# The steps of `chatbot.data.cleaning.Cleaning` that are on or off: default and help.
STEPS = {
    "html": (True, "make entities characters and drop tags"),
    "unicode": (True, "NFC, no control characters, single spaces"),
    "urls": (True, "say 'this link' for web addresses"),
    "emails": (True, "say 'this email address' for e-mail addresses"),
    "phones": (True, "say 'this phone number' for phone numbers"),
    "detokenize": (True, "join what a tokenizer parted: do n't"),
    "placeholders": (True, "learn no reply with [name] and the like"),
    "profanity": (False, "learn no reply with profanity"),
    "duplicates": (True, "keep one of the dialogues with the same words"),
    "near-duplicates": (True, "keep one of those with almost the same words"),
    "leaks": (True, "keep no dialogue that is, nearly, in a held-out split"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 2 for bad input, which is said in one line."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    options.rest = rest
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        return 130
    except (ImportError, MemoryError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())  # some libraries fill pages
        print(f"chatbot {options.command}: {reason}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chatbot", description="Recurrent encoder-decoder chatbots with attention."
    )
    parser.add_argument("--version", action="version", version=f"chatbot {version(DISTRIBUTION)}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    chat = _command(commands, "chat", _chat, "talk in the terminal")
    _add_model(chat)
    chat.add_argument("--preset", help="how replies are chosen (lively; of translations: precise)")
    chat.add_argument("--seed", type=int, help="of the draws; the same seed, the same chat")
    _add_confidence(chat)

    serve = _command(commands, "serve", _serve, "talk in the browser")
    said = "folders of models, of which one is picked on the page; else the shipped one"
    serve.add_argument("models", nargs="*", type=Path, metavar="model", help=said)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (7860, or the next free one)")
    serve.add_argument("--no-browser", action="store_true", help="do not open the page")
    said = "where ratings go (feedback.jsonl; nowhere, unless given, where --host is not 127.0.0.1)"
    serve.add_argument("--feedback", type=Path, metavar="FILE", help=said)
    _add_access(serve)
    _add_confidence(serve)

    prepare = _command(commands, "prepare", _prepare, "make a dataset of conversations")
    _add_sources(prepare)
    said = "chat, or seq2seq for pairs without speakers, as of translation (of a.en+a.it seq2seq)"
    prepare.add_argument("--task", choices=("chat", "seq2seq"), help=said)
    _add_output(prepare, "folder to write")
    prepare.add_argument(
        "--tokenizer", type=Path, help="folder of a tokenizer; else one is trained"
    )
    _add_vocabulary(prepare)
    prepare.add_argument("--target-vocab-size", type=int, help="of pairs (as --vocab-size)")
    prepare.add_argument("--shared-vocabulary", action="store_true", help="one for both of a pair")
    prepare.add_argument("--max-source-tokens", type=int, default=96, help="of a context (96)")
    prepare.add_argument("--max-target-tokens", type=int, default=48, help="of a reply (48)")
    prepare.add_argument("--processes", type=int, help="that work side by side (one a core)")
    _add_cleaning(prepare)

    report = _command(commands, "report", _report, "write what a dataset is like, as a page")
    report.add_argument("data", type=Path, help="folder that `chatbot prepare` wrote")
    report.add_argument("--output", type=Path, help="folder for report.html and .json (the same)")

    tokenizer = _command(commands, "train-tokenizer", _train_tokenizer, "make a vocabulary")
    _add_sources(tokenizer)
    _add_output(tokenizer, "folder to write")
    _add_vocabulary(tokenizer)

    train = _command(commands, "train", _train, "train a model")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    train.add_argument("--overwrite", action="store_true", help="replace a run in the same folder")
    said = "publish it afterwards, in private; whether that is allowed is seen before"
    train.add_argument("--push-to", metavar="owner/name", help=said)
    start = train.add_mutually_exclusive_group()
    start.add_argument("--from", dest="start", metavar="MODEL", help="continue this model")
    start.add_argument(
        "--from-scratch", dest="start", action="store_const", const="scratch", help="a new model"
    )
    train.usage = (
        "chatbot train [RUN.yaml] [--resume] [--overwrite] [--from MODEL | --from-scratch] "
        "[--push-to owner/name] [--FIELD VALUE ...]"
    )
    train.epilog = (
        "Without a YAML: a small model on the sample conversations (scripts/configs/tiny.yaml); "
        "with --data, the shipped model learns from them, unless --model. or --from say otherwise. "
        "Any field of the YAML can be given as an option and wins: "
        "--data mine.jsonl --model.attention dot --trainer.num_train_epochs 3"
    )

    evaluate = _command(commands, "evaluate", _evaluate, "measure perplexity, or everything")
    evaluate.add_argument("model", type=Path, help="folder of a model")
    evaluate.add_argument("data", type=Path, help="folder that `chatbot prepare` wrote")
    evaluate.add_argument("--split", default="test", choices=("train", "validation", "test"))
    evaluate.add_argument("--output", type=Path, help="folder for all there is to know")
    evaluate.add_argument("--overwrite", action="store_true", help="replace it where it exists")
    said = "presets to generate with (lively)"
    evaluate.add_argument("--decoding", default="lively", metavar="lively,greedy", help=said)
    said = "replies that are generated and ranked (1000)"
    evaluate.add_argument("--limit", type=int, default=1000, help=said)
    said = "another model, or the --output of its evaluation"
    evaluate.add_argument("--compare", type=Path, metavar="OTHER", help=said)

    read = _command(commands, "read", _read, "compare replies blind, and say which are preferred")
    said = "FOLDER, FOLDER@PRESET, or @PRESET of the shipped model"
    read.add_argument("models", nargs="*", metavar="A B", help=said)
    read.add_argument("--data", type=Path, help="folder that `chatbot prepare` wrote")
    read.add_argument("--split", default="test", choices=("train", "validation", "test"))
    read.add_argument("--count", type=int, default=50, help="contexts (50)")
    read.add_argument("--preset", default="lively", help="where A or B names none (lively)")
    read.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    said = "keeps the answers; reading goes on where it exists (sheet.jsonl)"
    read.add_argument("--output", type=Path, default=Path("sheet.jsonl"), help=said)
    read.add_argument("--html", type=Path, help="write a page for a browser instead")
    read.add_argument("--answers", type=Path, help="score these, which the page saved")

    doctor = _command(commands, "doctor", _doctor, "find out what ails a model")
    doctor.add_argument("model", type=Path, help="folder of a model")
    doctor.add_argument("data", type=Path, help="folder that `chatbot prepare` wrote")
    doctor.add_argument("--split", default="validation", choices=("train", "validation", "test"))
    doctor.add_argument("--limit", type=int, default=300, help="replies that are examined (300)")
    doctor.add_argument("--json", type=Path, metavar="FILE", help="write what was measured too")

    export = _command(commands, "export", _export, "write a model for onnxruntime, or in int8")
    _add_model(export)
    export.add_argument("--to", required=True, choices=("onnx", "int8"))
    _add_output(export, "folder to write")
    export.add_argument(
        "--data",
        type=Path,
        help="folder that `chatbot prepare` wrote: the loss of int8 is measured on its test split "
        "(else on our sample conversations)",
    )

    push = _command(commands, "push", _push, "publish a model on the Hub")
    push.add_argument("model", type=Path, help="folder of a model")
    _add_target(push)
    push.add_argument("--space", action="store_true", help="and a Space that runs it")
    said = "add what an Inference Endpoint needs: handler.py and this package"
    push.add_argument("--endpoint", action="store_true", help=said)

    data = _command(commands, "push-data", _push_data, "publish conversations on the Hub")
    data.add_argument("folder", type=Path, help="with README.md, its `license`, and data/*.jsonl")
    _add_target(data)
    return parser


def _command(
    commands: Any,
    name: str,
    run: object,
    help: str,
) -> argparse.ArgumentParser:
    description = help.capitalize() + "."
    command = commands.add_parser(name, help=help, description=description, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model", nargs="?", type=Path, help="folder of a model; else the shipped one"
    )


def _add_confidence(command: argparse.ArgumentParser) -> None:
    unset: Any = {"default": argparse.SUPPRESS}  # the defaults are those of ChatSession
    said = "reply with the fallback below this confidence, 0 to 1 (0: never)"
    command.add_argument("--min-confidence", type=float, metavar="P", help=said, **unset)
    said = "what is said then (I don't know that one yet.)"
    command.add_argument("--fallback", metavar="TEXT", help=said, **unset)


def _add_access(command: argparse.ArgumentParser) -> None:
    """Who may use a server. What is secret is better left out of a list of processes."""
    auth, key = os.environ.get("CHATBOT_AUTH"), os.environ.get("CHATBOT_API_KEY")
    said = "who may log in: USER:PASSWORD, or @FILE with one a line (CHATBOT_AUTH)"
    command.add_argument("--auth", default=auth, metavar="LOGIN", help=said)
    command.add_argument("--no-auth", action="store_true", help="let everybody in who can reach it")
    said = "what clients of the OpenAI-compatible routes must show (CHATBOT_API_KEY)"
    command.add_argument("--api-key", default=key, metavar="KEY", help=said)
    said = "messages a minute of each client; 0: any number (30, on this computer alone any number)"
    command.add_argument("--rate", type=int, metavar="N", help=said)
    said = "check neither messages for self-harm nor replies for slurs"
    command.add_argument("--no-safety", action="store_true", help=said)


def _add_target(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("repo_id", metavar="owner/name", help="made where it does not exist")
    add("--private", action="store_true", help="nobody else may see it")
    add("--create-pr", action="store_true", help="propose it, where you may not write")
    add("--revision", help="branch to send it to, made where it does not exist (main)")
    add("--dry-run", action="store_true", help="check everything and list the files, send nothing")
    said = "you know that sources without a known licence may be published"
    add("--licence-checked", action="store_true", help=said)


def _add_sources(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "sources",
        nargs="+",
        help="files or folders of conversations in any format of docs/data.md, a.en+a.it, or "
        "hub:owner/name[:config][:split]; a number behind it (:0.2) is its weight",
    )
    add("--format", help="of the sources; else it is recognised")
    add("--encoding", help="of text files (UTF-8, or what a byte order mark says)")
    add("--bot", metavar="NAME", help="who the model learns to be (the second to speak)")
    add(
        "--column",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help="of a table: context=question; roles are context, reply, speaker, text, dialogue, ... "
        "(of pairs: source, target)",
    )
    add("--download", action="store_true", help="keep a copy of datasets of the Hub")


def _add_output(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("--output", type=Path, required=True, help=help)
    command.add_argument("--overwrite", action="store_true", help="replace it where it exists")


def _add_vocabulary(command: argparse.ArgumentParser) -> None:
    command.add_argument("--level", default="bpe", choices=LEVELS, help="of the tokens (bpe)")
    command.add_argument("--vocab-size", type=int, help="tokens (4,096, or what the texts give)")
    command.add_argument("--keep-case", action="store_true", help="do not lower-case")


def _add_cleaning(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("cleaning", "What is done to the conversations.")
    for name, (default, help) in STEPS.items():
        switch = argparse.BooleanOptionalAction
        said = f"{help} ({'on' if default else 'off'})"
        group.add_argument(f"--{name}", action=switch, default=default, help=said)
    add = group.add_argument
    add("--without", type=Path, metavar="FILE", help="drop what holds one of its lines")
    add("--mute", type=Path, metavar="FILE", help="learn no reply with one of its expressions")
    said = "learn what either says, of these sources of two people"
    add("--both-sides", default="", metavar="SOURCE,SOURCE", help=said)
    add("--languages", default="", metavar="en,de", help="keep only dialogues in these")
    add("--max-length-ratio", type=float, help="drop pairs with a side so many times as long")
    add("--max-reply-words", type=int, help="learn no longer reply")
    add("--max-reply-count", type=int, help="learn the same reply at most so often")
    add("--max-reply-entropy", type=float, help="learn no reply to more different turns (bits)")


def _chat(options: argparse.Namespace) -> int:
    from chatbot.terminal import run_terminal_chat

    return run_terminal_chat(
        options.model, preset=options.preset, seed=options.seed, **_confidence(options)
    )


def _serve(options: argparse.Namespace) -> int:
    from chatbot.app import launch_app

    launch_app(
        *map(_fetched, options.models),
        host=options.host,
        port=options.port,
        open_browser=not options.no_browser,
        feedback=options.feedback,
        auth=options.auth,
        no_auth=options.no_auth,
        api_key=options.api_key,
        rate=options.rate,
        safety=not options.no_safety,
        **_confidence(options),
    )
    return 0


def _fetched(model: Path) -> Path:
    """A folder. The client is imported for a name of the Hub only: the app is offline otherwise."""
    if model.exists():
        return model
    from chatbot.hub_download import download_model, is_hub_name

    return download_model(str(model)) if is_hub_name(str(model)) else model


def _confidence(options: argparse.Namespace) -> dict[str, Any]:
    """Of `--min-confidence` and `--fallback` what was given."""
    given = vars(options)
    return {name: given[name] for name in ("min_confidence", "fallback") if name in given}


def _prepare(options: argparse.Namespace) -> int:
    from chatbot.data import prepare

    report = prepare(
        options.sources,
        options.output,
        task=options.task,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        target_vocab_size=options.target_vocab_size,
        shared_vocabulary=options.shared_vocabulary,
        level=options.level,
        lowercase=not options.keep_case,
        max_source_tokens=options.max_source_tokens,
        max_target_tokens=options.max_target_tokens,
        overwrite=options.overwrite,
        num_proc=options.processes,
        clean=_cleaning(options),
        **_source_options(options),
    )
    print(report.summary())
    print(f"Train on it: chatbot train --data {shlex.quote(str(options.output))}")
    return 0


def _cleaning(options: argparse.Namespace) -> dict[str, Any]:
    limits = ("max_length_ratio", "max_reply_words", "max_reply_count", "max_reply_entropy")
    names = (*(name.replace("-", "_") for name in STEPS), *limits)
    languages = [code for code in options.languages.split(",") if code]
    both = [name for name in options.both_sides.split(",") if name]
    lists = {"languages": languages, "both_sides": both}
    for name in ("without", "mute"):
        file = vars(options)[name]
        lists[name] = file.read_text("utf-8").splitlines() if file else []
    return {**lists, **{name: vars(options)[name] for name in names}}


def _report(options: argparse.Namespace) -> int:
    from chatbot.data import write_report

    print(f"Open it: {write_report(options.data, options.output)}")
    return 0


def _source_options(options: argparse.Namespace) -> dict[str, Any]:
    pairs = [column.partition("=") for column in options.column]
    for role, _, name in pairs:
        if not (role and name):
            raise ValueError(f"--column {role}: allowed: ROLE=NAME, as in --column reply=answer")
    return {
        "format": options.format,
        "encoding": options.encoding,
        "bot": options.bot,
        "columns": {role: name for role, _, name in pairs},
        "streaming": not options.download,
    }


def _train_tokenizer(options: argparse.Namespace) -> int:
    from chatbot.data import SourceOptions, training_texts
    from chatbot.folders import whole_folder
    from chatbot.tokenization import train_tokenizer

    overwrite = options.overwrite
    with whole_folder(options.output, overwrite=overwrite, mark="tokenizer.json") as folder:
        tokenizer = train_tokenizer(
            training_texts(options.sources, SourceOptions(**_source_options(options))),
            level=options.level,
            vocab_size=options.vocab_size,
            lowercase=not options.keep_case,
        )
        tokenizer.save_pretrained(folder)
    print(f"{options.output}: {len(tokenizer)} tokens")
    return 0


def _train(options: argparse.Namespace) -> int:
    from chatbot.training import train
    from chatbot.training_run import load_run, parse_overrides

    rest = options.rest
    config = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    overrides = parse_overrides(rest)
    if options.start is not None:
        overrides["start"] = options.start
    run = load_run(config, overrides)
    if options.push_to is not None:
        from chatbot.hub_upload import Target, check_permission

        check_permission(Target(options.push_to, private=True))
    done = train(
        run,
        resume=options.resume,
        overwrite=options.overwrite,
        command=shlex.join(["chatbot", *options.arguments]),
    )
    if done and options.push_to is not None:
        from chatbot.hub import push_chatbot

        folder = shlex.quote(str(run.folder / "model"))
        print(f"Publishing it, as does: chatbot push {folder} {options.push_to} --private")
        push_chatbot(run.folder / "model", options.push_to, private=True)
    return 0 if done else 130


def _evaluate(options: argparse.Namespace) -> int:
    from chatbot.checkpoints import load_chatbot, load_target_tokenizer
    from chatbot.data import load_prepared
    from chatbot.evaluation import group_table, perplexity_columns, score_tokens

    if options.output is not None:
        return _evaluate_all(options)
    if options.compare is not None:
        raise ValueError("--compare is not possible without --output")
    model, tokenizer = load_chatbot(options.model)
    chatbot = (model, load_target_tokenizer(options.model))
    examples = load_prepared(options.data, tokenizer, chatbot[1])[options.split]
    if not len(examples):
        raise ValueError(
            f"{options.data}: its {options.split} split is empty; name another --split"
        )
    columns, of = perplexity_columns(score_tokens(*chatbot, examples)), examples["dialogue"]
    whole = group_table(columns, of, ["all"] * len(examples))
    for row in group_table(columns, of, examples["source"]) + whole:
        token, word = (row[f"perplexity per {unit}"]["value"] for unit in ("token", "word"))
        replies = f"({row['count']:,} replies)"
        print(f"{row['name']}: {token:.1f} per token, {word:.1f} per word {replies}")
    for name in columns:
        print(f"{name:<20}", _with_interval(whole[0][name]))
    return 0


def _evaluate_all(options: argparse.Namespace) -> int:
    import json
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from chatbot.checkpoints import load_chatbot, load_target_tokenizer
    from chatbot.data import load_prepared
    from chatbot.evaluation_report import RESULTS, evaluate
    from chatbot.folders import check_replaceable

    def run(model: Path, output: Path, *splits: str, other: Path | None = None) -> dict[str, Any]:
        loaded, tokenizer = load_chatbot(model)
        chatbot = (loaded, load_target_tokenizer(model))
        return evaluate(
            chatbot,
            load_prepared(options.data, tokenizer, chatbot[1]),
            output,
            source_tokenizer=tokenizer,
            about=about | {"model": str(model)},
            splits=list(dict.fromkeys(splits)),
            decodings=options.decoding.split(","),
            limit=options.limit,
            other=other,
            overwrite=options.overwrite,
        )

    missing = [name for name in ("matplotlib", "sacrebleu") if find_spec(name) is None]
    if missing:
        raise ImportError(f"--output needs {' and '.join(missing)}: install the extra `evaluate`")
    check_replaceable(options.output, overwrite=options.overwrite, mark=RESULTS)
    about = {"data": str(options.data), "limit": options.limit, "other": str(options.compare)}
    with TemporaryDirectory() as scratch:
        other = options.compare
        if other is not None and (other / RESULTS).is_file():
            limit = json.loads((other / RESULTS).read_text("utf-8"))["limit"]
            if limit != options.limit:
                raise ValueError(f"{other} was made with --limit {limit}: give the same")
        elif other is not None:
            other = Path(scratch) / "other"
            run(options.compare, other, options.split)
        results = run(options.model, options.output, options.split, "train", other=other)
    for group, measures in results["splits"][options.split]["measures"].items():
        for name, measured in measures.items():
            print(f"{group}, {name}:", _with_interval(measured))
    for row in results["comparison"]:
        ours, theirs, gap = (_with_interval(row[name]) for name in ("ours", "theirs", "gap"))
        print(f"{row['name']}: {ours} against {theirs}; gap {gap}, p {row['gap']['p']:.3f}")
    print(f"Open it: {options.output / 'report.html'}")
    return 0


def _with_interval(of: dict[str, Any]) -> str:
    interval = f" [{of['low']:.3f}, {of['high']:.3f}]" if "low" in of else ""
    return f"{of['value']:.3f}{interval}"


def _read(options: argparse.Namespace) -> int:
    from chatbot import reading

    if options.answers is not None:
        print(reading.preference(reading.load_sheet(options.answers)))
        return 0
    if len(options.models) != 2 or options.data is None:
        raise ValueError("two models and --data are needed, or --answers")
    names = [name if "@" in name else f"{name}@{options.preset}" for name in options.models]
    if options.output.exists():
        sheet = reading.load_sheet(options.output)
        if sheet[0]["names"] != names:
            found = " and ".join(sheet[0]["names"])
            raise ValueError(f"{options.output} compares {found}; name another --output")
    else:
        drawn: Any = {"split": options.split, "count": options.count, "seed": options.seed}
        sheet = reading.make_sheet(names, options.data, **drawn)
        reading.save_sheet(sheet, options.output)
    if options.html is not None:
        reading.write_page(sheet, options.html)
        print(f"Open it: {options.html}")
        return 0
    try:
        reading.read_sheet(sheet, options.output)
    except EOFError:
        print()
    print(reading.preference(sheet))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """1 where something is broken: a script may stop there."""
    from chatbot.checkpoints import load_chatbot
    from chatbot.doctor import examine

    model, tokenizer = load_chatbot(options.model)
    found = examine(model, tokenizer, options.data, options.split, options.limit)
    print(found)
    if options.json is not None:
        options.json.write_text(f"{found.as_json()}\n", "utf-8")
    return int(found.findings[0][0] == "broken")


def _export(options: argparse.Namespace) -> int:
    from chatbot.checkpoints import load_chatbot, load_target_tokenizer
    from chatbot.data import load_prepared
    from chatbot.export import DECODER, ENCODER, export_int8, export_onnx, sample_examples
    from chatbot.tokenization import is_chat

    if options.to == "onnx" and options.data is not None:
        raise ValueError("--data is not possible with --to onnx; allowed: with --to int8")
    model, tokenizer = load_chatbot(options.model)
    target = None if model.config.share_embeddings else load_target_tokenizer(options.model)
    kept: dict[str, Any] = {"target_tokenizer": target, "overwrite": options.overwrite}
    if options.to == "onnx":
        export_onnx(model, tokenizer, options.output, **kept)
        for graph in (ENCODER, DECODER):
            path = options.output / graph
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        return 0
    if options.data is not None:
        examples = load_prepared(options.data, tokenizer, target)["test"]
    elif model.config.decoder_vocab_size == model.config.vocab_size and is_chat(tokenizer):
        examples = sample_examples(tokenizer, model.config.max_source_positions)
    else:
        raise ValueError("--to int8 needs --data for a model of two vocabularies, or of pairs")
    print(export_int8(model, tokenizer, options.output, examples, **kept))
    return 0


def _push(options: argparse.Namespace) -> int:
    from chatbot.hub import push_chatbot

    parts = {"space": options.space, "endpoint": options.endpoint}
    push_chatbot(options.model, options.repo_id, **parts, **_target(options))
    return 0


def _push_data(options: argparse.Namespace) -> int:
    from chatbot.hub import push_data

    push_data(options.folder, options.repo_id, **_target(options))
    return 0


def _target(options: argparse.Namespace) -> dict[str, Any]:
    names = ("private", "create_pr", "revision", "dry_run", "licence_checked")
    return {name: vars(options)[name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
