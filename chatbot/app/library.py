"""Conversations as files, and the secret under which a browser keeps them.

The browser holds the conversations (library.js); here they are only read and written as text.
"""

import json
import os
import re
import reprlib
import secrets
from pathlib import Path
from typing import Literal, TypedDict

from chatbot.app import strings
from chatbot.chat import MAX_MESSAGE_CHARACTERS
from chatbot.data.reading import DataError
from chatbot.data.records import Message, Skipped, parse_dialogue

STORAGE_KEY = "wren-conversations"
MAX_CONVERSATIONS = 100
# of all of them as JSON: encrypted, the worst text takes four times that; browsers give 5 million
MAX_STORED_CHARACTERS = 1_000_000
MAX_MESSAGES = 200
MAX_TITLE = 60
SPEAKERS: dict[Literal["user", "assistant"], str] = {
    "user": strings.YOU,
    "assistant": strings.TITLE,
}
# what Markdown would take for markup anywhere, and at the start of a line
_MARKUP = re.compile(r"[\\`*_\[\]<&!|~$]")
_LINE_MARKUP = re.compile(r"^(\s*(?:\d+(?=[.)]))?)([#>+=.)-])")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


class Conversation(TypedDict):
    """What a file holds."""

    title: str
    messages: list[Message]


def write_json(conversation: Conversation) -> str:
    """A record of our dataset format, which `chatbot prepare` reads too, on many lines."""
    return json.dumps(conversation, ensure_ascii=False, indent=2) + "\n"


def write_markdown(conversation: Conversation) -> str:
    """A heading for each message, its text quoted; markup in the text is shown as it was typed."""
    parts = [f"# {_escape(conversation['title'])}"]
    for message in conversation["messages"]:
        text = "\\\n".join(_escape(line) for line in message["content"].split("\n"))
        quoted = "\n".join(f"> {line}" for line in text.split("\n"))
        parts += [f"## {SPEAKERS[message['role']]}", quoted]
    return "\n\n".join(parts) + "\n"


def read_conversation(text: str) -> Conversation:
    """What `write_json` or `write_markdown` made of a conversation, whichever it is.

    Raises:
        ValueError: It is neither, or more than a conversation may hold; the message says where.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    conversation = _read_json(text) if text.lstrip()[:1] in ("{", "[") else _read_markdown(text)
    messages = conversation["messages"]
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise ValueError(strings.FILE_MESSAGES.format(len(messages), MAX_MESSAGES))
    for number, message in enumerate(messages, 1):
        if not 0 < len(message["content"]) <= MAX_MESSAGE_CHARACTERS:
            numbers = (number, len(message["content"]), MAX_MESSAGE_CHARACTERS)
            raise ValueError(strings.FILE_LENGTH.format(*numbers))
        if message["role"] != ("user", "assistant")[(number - 1) % 2]:
            raise ValueError(strings.FILE_TURNS.format(number))
    title = conversation["title"].strip() or messages[0]["content"]
    return {"title": " ".join(title.split())[:MAX_TITLE], "messages": messages}


def browser_secret(folder: Path | None = None) -> str:
    """The secret of this server, made once, in a file that its owner alone may read.

    Raises:
        OSError: It can be neither read nor written.
    """
    path = (folder or user_folder()) / "browser_secret"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    except FileExistsError:
        pass
    return path.read_text("utf-8")


def user_folder() -> Path:
    """Where this program keeps what is the user's own: `$XDG_CONFIG_HOME/chatbot`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "chatbot"


def _read_json(text: str) -> Conversation:
    try:
        record = json.loads(text)
        skipped = Skipped()
        dialogue = parse_dialogue(record, strings.FILE, skipped)
        title = record.get("title", "")
        if skipped or not isinstance(title, str):
            raise DataError(strings.FILE_PARTS.format(", ".join(skipped) or "title"))
        json.dumps([title, dialogue], ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ValueError(strings.BAD_FILE.format(error)) from error
    return {"title": title, "messages": dialogue["messages"]}


def _read_markdown(text: str) -> Conversation:
    headings = {f"## {name}": role for role, name in SPEAKERS.items()}
    title, messages = "", list[Message]()
    quoted: list[str] | None = None  # lines of the message that is being read
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.startswith(">") and quoted is not None:
            quoted.append(line[2:])
            continue
        if quoted:
            messages[-1]["content"] = _unescape("\n".join(quoted))
            quoted = None
        if line in headings:
            messages.append({"role": headings[line], "content": ""})
            quoted = []
        elif line.startswith("# ") and not messages:
            title = _unescape(line[2:])
        elif line.strip():
            found = strings.MARKDOWN_LINE.format(number, reprlib.repr(line))
            raise ValueError(strings.BAD_FILE.format(found))
    return {"title": title, "messages": messages}


def _escape(line: str) -> str:
    return _LINE_MARKUP.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", line))


def _unescape(text: str) -> str:
    """Takes `_escape` back, and the backslashes at the ends of lines."""
    return _ESCAPED.sub(r"\1", re.sub(r"(?<!\\)((?:\\\\)*)\\\n", r"\1\n", text))
