"""Cleaning: what is removed from a text, and which dialogues are dropped, and why."""

import re
import unicodedata
from enum import StrEnum
from itertools import groupby

from chatbot.data.records import Message

# Control characters but white space, soft hyphen, zero-width space, marks of direction, byte order
# mark, surrogates. The joiners U+200C and U+200D stay: emoji and Persian are written with them.
_JUNK = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]+"
)
_SPACE = re.compile(r"\s+")


class DropReason(StrEnum):
    """Why a dialogue teaches nothing."""

    EMPTY = "no text"
    ONE_TURN = "one turn"
    NO_REPLY = "no reply"
    DUPLICATE = "duplicate"


def clean_text(text: str) -> str:
    """Unicode NFC without control and zero-width characters; white space runs are one space."""
    return unicodedata.normalize("NFC", _SPACE.sub(" ", _JUNK.sub("", text)).strip())


def clean_dialogue(messages: list[Message]) -> list[Message] | DropReason:
    """Cleaned turns whose speakers alternate, or why the dialogue is dropped.

    Empty turns go, then runs of one speaker are merged. An assistant who speaks first stays, as
    history that the user answers: it is no reply to anything.
    """
    cleaned = [(message["role"], clean_text(message["content"])) for message in messages]
    spoken = [(role, text) for role, text in cleaned if text]
    turns = [
        Message(role=role, content=" ".join(text for _, text in run))
        for role, run in groupby(spoken, key=lambda turn: turn[0])
    ]
    if not turns:
        return DropReason.EMPTY
    if len(turns) == 1:
        return DropReason.ONE_TURN
    if len(turns) == 2 and turns[0]["role"] == "assistant":
        return DropReason.NO_REPLY
    return turns
