"""The chat in the terminal: streamed replies, commands, line history; piped input works too."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from transformers.utils import logging

from chatbot.chat import ChatSession, clean_message
from chatbot.checkpoints import load_chatbot
from chatbot.decoding import default_preset
from chatbot.pipelines import Seq2SeqChatPipeline
from chatbot.presets import generation_presets
from chatbot.tokenization import is_chat

HELP = """\
/reset          forget the conversation
/undo           take back the last exchange
/preset NAME    how replies are chosen: {presets}
/help           this list
/quit           leave (so does Ctrl-D)"""


def run_terminal_chat(
    folder: Path | None = None,
    *,
    preset: str | None = None,
    seed: int | None = None,
    **confidence: Any,
) -> int:
    """Talk until the input ends; `min_confidence` and `fallback` are those of `ChatSession`.

    With a model of parallel text each line is translated. Returns the exit status.
    """
    logging.disable_progress_bar()  # of loading: a chat needs none
    model, tokenizer = load_chatbot(folder)
    preset = preset or default_preset(tokenizer)
    interactive = sys.stdin.isatty()
    if interactive:
        _remember_lines()
    if not is_chat(tokenizer):
        options = {"preset": preset, "seed": seed, **confidence}
        _translate_lines(Seq2SeqChatPipeline(model, tokenizer=tokenizer, **options), interactive)
        return 0
    session = ChatSession(model, tokenizer, preset, seed=seed, **confidence)
    if interactive:
        print("Talk to the bot. /help lists the commands, Ctrl-D leaves.")
    while (line := _read_line(interactive)) is not None:
        if line.startswith("/"):
            if line.split()[0] in ("/quit", "/exit"):
                break
            print(run_command(session, line))
        elif line.strip():
            _answer(session, line, sys.stdout, prefix="bot> " if interactive else "")
    return 0


def _translate_lines(translate: Callable[[str], Any], interactive: bool) -> None:
    """Print a line for each line, a blank one for a blank one: two files stay parallel."""
    if interactive:
        print("Each line is translated by itself: there is no history. Ctrl-D leaves.")
    while (line := _read_line(interactive)) is not None:
        print(translate(line)[0]["generated_text"] if clean_message(line) else "", flush=True)


def run_command(session: ChatSession, line: str) -> str:
    """Carry out a line that begins with a slash. Returns what to tell the person."""
    command, _, argument = line.partition(" ")
    presets = generation_presets()
    if command == "/reset":
        session.reset()
        return "Forgotten."
    if command == "/undo":
        message = session.undo()
        return "There is nothing to take back." if message is None else f"Taken back: {message}"
    if command == "/preset" and argument.strip() in presets:
        session.preset = presets[argument.strip()]
        return f"Replies are now {argument.strip()}."
    return HELP.format(presets=", ".join(presets))


def _read_line(interactive: bool) -> str | None:
    """The next line; None at the end of the input. Ctrl-C at the prompt leaves as well."""
    try:
        return input("you> " if interactive else "")
    except (EOFError, KeyboardInterrupt):
        if interactive:
            print()
        return None


def _answer(session: ChatSession, message: str, output: TextIO, prefix: str) -> None:
    """Print a reply while it comes. Ctrl-C ends the reply, not the chat."""
    output.write(prefix)
    shown = ""
    stream = session.stream(message)
    try:
        if not session.preset.can_stream:
            output.write(session.reply(message).text)
        else:
            for text in stream:
                # what is shown cannot be taken back: only what continues it is added
                if text.startswith(shown):
                    output.write(text[len(shown) :])
                    output.flush()
                    shown = text
    except KeyboardInterrupt:
        stream.close()
    output.write("\n")
    output.flush()


def _remember_lines() -> None:
    """Arrow keys recall earlier lines, of this chat only: nothing is written to disk."""
    try:
        import readline
    except ImportError:  # a Python built without it still chats
        return
    readline.set_history_length(1000)
