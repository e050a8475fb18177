"""Splits by dialogue: a hash of what is said decides, so that a dialogue never changes sides."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Literal

from chatbot.data.records import Message

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


def normalized_text(messages: Sequence[Message]) -> str:
    """NFKC, lower-cased, letters and digits only, single spaces; one line a turn."""
    return "\n".join(_normalized(message["content"]) for message in messages)


@lru_cache(maxsize=64)  # each turn of a dialogue is asked for three times
def _normalized(text: str) -> str:
    return _NOT_ALPHANUMERIC.sub(" ", unicodedata.normalize("NFKC", text).lower()).strip()


def dialogue_digest(messages: Sequence[Message]) -> bytes:
    """SHA-256 of the normalized text. Two dialogues that share it are duplicates."""
    text = normalized_text(messages)
    if not text.strip():  # emoji or signs alone
        text = "\n".join(message["content"] for message in messages)
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def split_of(digest: bytes) -> Split:
    """Of 50 dialogues, the digest puts one into test, two into validation, the rest into train.

    Where a folder or a dataset of the Hub brings a validation file, that is its validation split,
    and `prepare` leaves the dialogues that the digest would put there in train.
    """
    remainder = int.from_bytes(digest) % 50
    if remainder == 0:
        return "test"
    return "validation" if remainder in (1, 2) else "train"


def is_test(messages: Sequence[Message]) -> bool:
    """Whether a cleaned dialogue is held out of every training: its digest is divisible by 50."""
    return split_of(dialogue_digest(messages)) == "test"
