"""Cleaning: what is removed from a text, which replies are not learned, which dialogues dropped."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from importlib.util import find_spec
from itertools import groupby
from typing import Any, Literal

from chatbot.data import steps
from chatbot.data.records import Message
from chatbot.data.splits import dialogue_digest, normalized_text
from chatbot.presets import check_names

# Control characters but white space, soft hyphen, zero-width space, marks of direction, byte order
# mark, surrogates. The joiners U+200C and U+200D stay: emoji and Persian are written with them.
_JUNK = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]+"
)
EXAMPLES = 10  # that a step shows
_SHOWN = 300  # characters of each


class DropReason(StrEnum):
    """Why a dialogue teaches nothing."""

    EMPTY = "no text"
    ONE_TURN = "one turn"
    NO_REPLY = "no reply"
    LANGUAGE = "other language"
    WITHOUT = "left out"
    UNEVEN = "uneven pair"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near duplicate"
    LEAK = "leak"


@dataclass(frozen=True)
class Cleaning:
    """The steps that run, in their order. Each is an option of `chatbot prepare`: `--no-html`."""

    html: bool = True  # entities become characters, tags go
    unicode: bool = True  # NFC, no control characters, single spaces
    urls: bool = True  # web addresses become 'this link'
    emails: bool = True  # e-mail addresses become 'this email address'
    phones: bool = True  # phone numbers become 'this phone number'
    detokenize: bool = True  # do n't , becomes don't,
    languages: tuple[str, ...] = ()  # only dialogues in these (extra data)
    without: tuple[str, ...] = ()  # dialogues with one of these sentences go
    max_length_ratio: float | None = None  # pairs with a side so many times as long go
    placeholders: bool = True  # replies with [name] and the like are not learned
    profanity: bool = False  # replies with profanity are not learned (extra data)
    mute: tuple[str, ...] = ()  # replies with one of these regular expressions are not learned
    max_reply_words: int | None = None  # longer replies are not learned
    duplicates: bool = True  # dialogues with the same words go
    near_duplicates: bool = True  # dialogues with almost the same words go
    leaks: bool = True  # dialogues go that nearly stand in a held-out split too
    both_sides: tuple[str, ...] = ()  # of these sources, in train, the user's replies count as well
    max_reply_count: int | None = None  # a reply is learned at most so often
    max_reply_entropy: float | None = None  # replies that follow anything, by more bits, go

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, allowed = getattr(self, entry.name), ""
            if isinstance(entry.default, bool):
                allowed = "" if isinstance(value, bool) else "true, false"
            elif entry.name == "languages":
                if isinstance(value, str) or not all(re.fullmatch("[a-z]{2}", c) for c in value):
                    allowed = "a list of codes such as en, de"
            elif entry.name in ("without", "mute", "both_sides"):
                allowed = "a list of lines" if isinstance(value, str) else ""
            elif value is not None:
                kind = int if entry.name in ("max_reply_words", "max_reply_count") else float
                if type(value) not in (int, kind) or value <= 0:
                    allowed = "a number above 0, or null"
            if allowed:
                raise ValueError(f"clean.{entry.name}={value!r}: allowed is {allowed}")
        object.__setattr__(self, "languages", tuple(self.languages))
        object.__setattr__(self, "both_sides", tuple(self.both_sides))
        object.__setattr__(self, "mute", tuple(filter(None, self.mute)))
        for pattern in self.mute:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"clean.mute={pattern!r}: {error}") from error
        sentences = (normalized_text([Message(role="user", content=s)]) for s in self.without)
        object.__setattr__(self, "without", tuple(filter(None, sentences)))
        for name, library in (("profanity", "better_profanity"), ("languages", "py3langid")):
            if getattr(self, name) and find_spec(library) is None:
                raise ImportError(f"clean.{name} needs {library}: install the extra `data`")

    @classmethod
    def of(cls, given: "Cleaning | Mapping[str, Any]") -> "Cleaning":
        """The steps that a mapping of switches names; the others as they are by default."""
        if isinstance(given, Cleaning):
            return given
        check_names(given, {entry.name for entry in fields(cls)}, "clean")
        return cls(**given)


@dataclass
class StepLog:
    """How often each step did something, and the first ten times."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[dict[str, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, step: str, before: str, after: str = "") -> None:
        """One text or dialogue that a step changed into `after`, or removed in favour of it."""
        self.counts[step] += 1
        if len(self.examples[step]) < EXAMPLES:
            shown = {"before": before[:_SHOWN], "after": after[:_SHOWN]}
            # half a pair of surrogates is no text that can be written
            texts = {key: text.encode("utf-8", "replace").decode() for key, text in shown.items()}
            self.examples[step].append(texts)

    def update(self, other: "StepLog") -> None:
        self.counts.update(other.counts)
        for step, examples in other.examples.items():
            self.examples[step] += examples[: EXAMPLES - len(self.examples[step])]

    def plain(self, cleaning: Cleaning) -> dict[str, Any]:
        """Setting, count and examples by step, in the order in which they run."""
        return {
            entry.name: {
                "setting": getattr(cleaning, entry.name),
                "count": self.counts[entry.name],
                "examples": self.examples[entry.name],
            }
            for entry in fields(Cleaning)
        }


@dataclass(frozen=True)
class Cleaned:
    """A dialogue after the steps that look at it alone."""

    messages: list[Message]
    muted: list[int]
    """Turns that are history for the others, but no reply to learn."""
    origin: bytes
    """Digest of the text before any step but `unicode`: no switch moves a dialogue to another
    split."""


def clean_text(text: str) -> str:
    """Unicode NFC without control and zero-width characters; white space runs are one space."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return unicodedata.normalize("NFC", " ".join(_JUNK.sub("", text).split()))


def clean_dialogue(messages: Sequence[Message]) -> list[Message] | DropReason:
    """Turns after `clean_text` whose speakers alternate, or why the dialogue is dropped.

    Empty turns go, then runs of one speaker are merged. An assistant who speaks first stays, as
    history that the user answers: it is no reply to anything.
    """
    return _merge(messages, [clean_text(message["content"]) for message in messages])


def apply_steps(
    messages: Sequence[Message], cleaning: Cleaning, log: StepLog
) -> Cleaned | DropReason:
    """A dialogue after all steps that look at it alone, or why it is dropped."""
    raw = [message["content"] for message in messages]
    texts = _apply("html", steps.html, raw, cleaning, log)
    is_raw = texts == raw
    texts = _apply("unicode", lambda texts: [*map(clean_text, texts)], texts, cleaning, log)
    plain = texts if is_raw and cleaning.unicode else [*map(clean_text, raw)]
    for name, step in steps.TEXT_STEPS.items():
        texts = _apply(name, step, texts, cleaning, log)
    turns = _merge(messages, texts)
    if isinstance(turns, DropReason):
        return turns
    if cleaning.languages:
        said = " ".join(turn["content"] for turn in turns)
        language = steps.language_of(said)
        if language is not None and language not in cleaning.languages:
            log.add("languages", said, language)
            return DropReason.LANGUAGE
    if cleaning.without and any(map(normalized_text(turns).__contains__, cleaning.without)):
        log.add("without", " / ".join(turn["content"] for turn in turns))
        return DropReason.WITHOUT
    lengths = sorted(len(turn["content"]) for turn in turns)
    if cleaning.max_length_ratio and lengths[-1] > cleaning.max_length_ratio * lengths[0]:
        log.add("max_length_ratio", " / ".join(turn["content"] for turn in turns))
        return DropReason.UNEVEN
    muted = muted_replies(turns, cleaning, log)
    if muted is None:
        return DropReason.NO_REPLY
    origin = turns if texts == plain else _merge(messages, plain)
    return Cleaned(turns, muted, dialogue_digest(turns if isinstance(origin, str) else origin))


def muted_replies(turns: Sequence[Message], cleaning: Cleaning, log: StepLog) -> list[int] | None:
    """The replies that are not learned; None where that is all of them."""
    replies = [i for i, turn in enumerate(turns) if i and turn["role"] == "assistant"]
    muted = [i for i in replies if _is_mute(turns[i]["content"], cleaning, log)]
    return None if len(muted) == len(replies) else muted


def exchanged(messages: Sequence[Message]) -> list[Message]:
    """The dialogue as the other one had it. Where the user began, the assistant now does, and
    says nothing there that is learned."""
    other: dict[str, Literal["user", "assistant"]] = {"user": "assistant", "assistant": "user"}
    return [Message(role=other[m["role"]], content=m["content"]) for m in messages]


def _apply(name: str, step: Any, texts: list[str], cleaning: Cleaning, log: StepLog) -> list[str]:
    if not getattr(cleaning, name):
        return texts
    changed: list[str] = step(texts)
    for before, after in zip(texts, changed, strict=True):
        if before != after:
            log.add(name, before, after)
    return changed


def _is_mute(reply: str, cleaning: Cleaning, log: StepLog) -> bool:
    if cleaning.placeholders and steps.has_placeholder(reply):
        step = "placeholders"
    elif cleaning.profanity and steps.has_profanity(reply):
        step = "profanity"
    elif any(re.search(pattern, reply, re.IGNORECASE) for pattern in cleaning.mute):
        step = "mute"
    elif cleaning.max_reply_words and len(reply.split()) > cleaning.max_reply_words:
        step = "max_reply_words"
    else:
        return False
    log.add(step, reply)
    return True


def _merge(messages: Sequence[Message], texts: Sequence[str]) -> list[Message] | DropReason:
    spoken = [(m["role"], text) for m, text in zip(messages, texts, strict=True) if text.strip()]
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
