"""The `chatbot` command: one subcommand a job.

    chatbot chat                        talk in the terminal, with the shipped model
    chatbot serve                       talk in the browser
    chatbot prepare mine.jsonl --output data/mine
    chatbot train scripts/configs/tiny.yaml --data data/mine
    chatbot evaluate runs/tiny/model data/mine

Each imports what it needs when it runs: `chatbot --help` answers at once.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

DISTRIBUTION = "rnn-seq2seq-chatbot"
LEVELS = ("bpe", "unigram", "word", "char")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 2 for bad input, which is said in one line."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError) as error:
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
    chat.add_argument("--preset", default="lively", help="how replies are chosen (lively)")
    chat.add_argument("--seed", type=int, help="of the draws; the same seed, the same chat")

    serve = _command(commands, "serve", _serve, "talk in the browser")
    _add_model(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (7860, or the next free one)")
    serve.add_argument("--no-browser", action="store_true", help="do not open the page")

    prepare = _command(commands, "prepare", _prepare, "make a dataset of conversations")
    prepare.add_argument(
        "sources", nargs="+", type=Path, help="JSON Lines files, or folders of them"
    )
    _add_output(prepare, "folder to write")
    prepare.add_argument(
        "--tokenizer", type=Path, help="folder of a tokenizer; else one is trained"
    )
    _add_vocabulary(prepare)
    prepare.add_argument("--max-source-tokens", type=int, default=96, help="of a context (96)")
    prepare.add_argument("--max-target-tokens", type=int, default=48, help="of a reply (48)")
    prepare.add_argument("--processes", type=int, default=1, help="that work side by side (1)")

    tokenizer = _command(commands, "train-tokenizer", _train_tokenizer, "make a vocabulary")
    tokenizer.add_argument("sources", nargs="+", type=Path, help="JSON Lines files, or folders")
    _add_output(tokenizer, "folder to write")
    _add_vocabulary(tokenizer)

    train = _command(commands, "train", _train, "train a model")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    train.add_argument("--overwrite", action="store_true", help="replace a run in the same folder")
    train.usage = "chatbot train [RUN.yaml] [--resume] [--overwrite] [--FIELD VALUE ...]"
    train.epilog = (
        "Without a YAML: a small model on the sample conversations (scripts/configs/tiny.yaml). "
        "Any field of the YAML can be given as an option and wins: "
        "--data mine.jsonl --model.attention dot --trainer.num_train_epochs 3"
    )

    evaluate = _command(commands, "evaluate", _evaluate, "measure perplexity")
    evaluate.add_argument("model", type=Path, help="folder of a model")
    evaluate.add_argument("data", type=Path, help="folder that `chatbot prepare` wrote")
    evaluate.add_argument("--split", default="test", choices=("train", "validation", "test"))
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


def _add_output(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("--output", type=Path, required=True, help=help)
    command.add_argument("--overwrite", action="store_true", help="replace it where it exists")


def _add_vocabulary(command: argparse.ArgumentParser) -> None:
    command.add_argument("--level", default="bpe", choices=LEVELS, help="of the tokens (bpe)")
    command.add_argument("--vocab-size", type=int, help="tokens (4,096, or what the texts give)")
    command.add_argument("--keep-case", action="store_true", help="do not lower-case")


def _chat(options: argparse.Namespace) -> int:
    from chatbot.terminal import run_terminal_chat

    return run_terminal_chat(options.model, preset=options.preset, seed=options.seed)


def _serve(options: argparse.Namespace) -> int:
    from chatbot.app import launch_app

    launch_app(
        options.model, host=options.host, port=options.port, open_browser=not options.no_browser
    )
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from chatbot.data import prepare

    report = prepare(
        options.sources,
        options.output,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        level=options.level,
        lowercase=not options.keep_case,
        max_source_tokens=options.max_source_tokens,
        max_target_tokens=options.max_target_tokens,
        overwrite=options.overwrite,
        num_proc=options.processes,
    )
    print(report.summary())
    print(f"Train on it: chatbot train --data {shlex.quote(str(options.output))}")
    return 0


def _train_tokenizer(options: argparse.Namespace) -> int:
    from chatbot.data import training_texts
    from chatbot.folders import whole_folder
    from chatbot.tokenization import train_tokenizer

    overwrite = options.overwrite
    with whole_folder(options.output, overwrite=overwrite, mark="tokenizer.json") as folder:
        tokenizer = train_tokenizer(
            training_texts(options.sources),
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
    run = load_run(config, parse_overrides(rest))
    return 0 if train(run, resume=options.resume, overwrite=options.overwrite) else 130


def _evaluate(options: argparse.Namespace) -> int:
    from chatbot.checkpoints import load_chatbot
    from chatbot.data import load_prepared
    from chatbot.evaluation import perplexity_by_source

    model, tokenizer = load_chatbot(options.model)
    examples = load_prepared(options.data, tokenizer)[options.split]
    if not len(examples):
        raise ValueError(
            f"{options.data}: its {options.split} split is empty; name another --split"
        )
    for row in perplexity_by_source(model, tokenizer, examples):
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
