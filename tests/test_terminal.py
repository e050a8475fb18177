"""The chat in the terminal: piped, and at a terminal."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from chat_helpers import Chatbot

from chatbot import ChatSession, GenerationPreset
from chatbot.presets import generation_presets
from chatbot.terminal import run_command, run_terminal_chat

PATIENCE = 300  # seconds after which a process that says nothing is given up


def pipe(
    folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What the chat prints where these lines are its input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run_terminal_chat(folder, seed=0) == 0
    return capsys.readouterr().out.splitlines()


def test_a_pipe_is_answered_line_by_line(
    tiny_chatbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = ChatSession.from_pretrained(tiny_chatbot_folder, seed=0)
    replies = [session.reply(message).text for message in ("hello", "how are you?")]
    text = "hello\n\n   \nhow are you?"  # blank lines are nothing said; no line end at the end
    assert pipe(tiny_chatbot_folder, text, monkeypatch, capsys) == replies


def test_commands_between_messages(
    tiny_chatbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = ChatSession.from_pretrained(tiny_chatbot_folder, seed=0)
    text = "hello\n/undo\n/preset greedy\nhello\n/reset\n/undo\n/preset precise\nhello\n/quit\nx\n"
    first = session.reply("hello").text
    session.reset()
    session.preset = generation_presets()["greedy"]
    greedy = session.reply("hello").text
    session.reset()
    session.preset = generation_presets()["precise"]
    assert pipe(tiny_chatbot_folder, text, monkeypatch, capsys) == [
        first,
        "Taken back: hello",
        "Replies are now greedy.",
        greedy,
        "Forgotten.",
        "There is nothing to take back.",
        "Replies are now precise.",
        session.reply("hello").text,
    ]


@pytest.mark.parametrize("line", ["/help", "/", "/what", "/preset", "/preset loud", "/HELP"])
def test_other_commands_show_the_list(tiny_chatbot: Chatbot, line: str) -> None:
    text = run_command(ChatSession(*tiny_chatbot), line)
    for command in ("/reset", "/undo", "/preset", "/help", "/quit"):
        assert command in text
    for preset in generation_presets():
        assert preset in text


@pytest.mark.parametrize("preset", ["greedy", "precise"])
def test_unsure_replies_give_way_to_the_fallback(
    tiny_chatbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    preset: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nhow are you?\n"))
    unsure = {"min_confidence": 1.0, "fallback": "Ask my boss."}
    assert run_terminal_chat(tiny_chatbot_folder, preset=preset, **unsure) == 0
    assert capsys.readouterr().out.splitlines() == ["Ask my boss."] * 2


class CtrlC(io.StringIO):
    """An output that presses Ctrl-C when the first words are written to it."""

    pressed = False

    def write(self, text: str) -> int:
        written = super().write(text)
        if text.strip() and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)
        return written


def test_ctrl_c_ends_a_reply_and_not_the_chat(
    tiny_chatbot_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = CtrlC()
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n/undo\nhow are you?\n"))
    monkeypatch.setattr(sys, "stdout", output)
    assert run_terminal_chat(tiny_chatbot_folder, seed=0) == 0
    first, undone, second = output.getvalue().splitlines()
    assert first
    assert undone == "Taken back: hello"
    assert second


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "chatbot", "chat", str(folder), "--seed", "0"]


def test_echo_hi(tiny_chatbot_folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tiny_chatbot_folder), input="hi\n", capture_output=True, text=True, cwd=tmp_path
    )
    session = ChatSession.from_pretrained(tiny_chatbot_folder, seed=0)
    assert done.stdout == session.reply("hi").text + "\n"
    assert (done.returncode, done.stderr) == (0, "")


class Terminal:
    """A process at a pseudo-terminal."""

    def __init__(self, arguments: list[str]):
        environment = {**os.environ, "TERM": "dumb", "INPUTRC": os.devnull}
        self.process, self.master = pty.fork()
        if not self.process:
            os.execve(arguments[0], arguments, environment)
        self.shown = ""

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def read_until(self, text: str) -> str:
        """What is shown up to this text, which comes."""
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], PATIENCE)
            assert ready, f"{text!r} does not come after {self.shown!r}"
            self.shown += os.read(self.master, 4096).decode()
        before, _, self.shown = self.shown.partition(text)
        return before

    def leave(self, keys: str) -> int:
        """Exit status after keys that end the process; pressed again where they came just before
        readline waited, and were not seen."""
        with suppress(OSError):  # what Linux says at the end
            while True:
                self.press(keys)
                while select.select([self.master], [], [], 10)[0]:
                    if not os.read(self.master, 4096):
                        raise OSError
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def test_a_chat_at_a_terminal(tiny_chatbot_folder: Path) -> None:
    terminal = Terminal(command(tiny_chatbot_folder))
    assert "/help lists the commands, Ctrl-D leaves." in terminal.read_until("you> ")
    terminal.press("hi\r")
    terminal.read_until("bot> ")
    session = ChatSession.from_pretrained(tiny_chatbot_folder, seed=0)
    assert terminal.read_until("you> ").strip() == session.reply("hi").text
    terminal.press("\x1b[A")  # arrow up: the line before comes again
    terminal.press("\r")
    assert terminal.read_until("bot> ").strip().startswith("hi")
    terminal.read_until("you> ")
    assert terminal.leave("\x04") == 0


def test_ctrl_c_at_the_prompt_leaves(tiny_chatbot_folder: Path) -> None:
    terminal = Terminal(command(tiny_chatbot_folder))
    terminal.read_until("you> ")
    assert terminal.leave("\x03") == 0


def test_every_preset_can_be_asked_for(tiny_chatbot: Chatbot) -> None:
    session = ChatSession(*tiny_chatbot)
    for name, preset in generation_presets().items():
        assert run_command(session, f"/preset  {name} ") == f"Replies are now {name}."
        assert session.preset == preset
        assert isinstance(session.preset, GenerationPreset)
