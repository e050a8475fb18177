"""Conversations as files, the secret of the browser, and what is kept of ratings."""

import json
import random
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chatbot.app.feedback import feedback_record, keep_feedback
from chatbot.app.library import (
    MAX_MESSAGES,
    Conversation,
    browser_secret,
    read_conversation,
    write_json,
    write_markdown,
)
from chatbot.chat import MAX_MESSAGE_CHARACTERS
from chatbot.data import prepare
from chatbot.data.records import parse_dialogue

NASTY = [
    "plain",
    "<img src=x> &lt; &amp; <!-- -->",
    "# a heading\n## You\n\n> quoted\n- item\n1. one\n2) two\n===",
    "**bold** _x_ `code` ~~no~~ $x$ | a ![p](http://example.org/p.png) [a](b)",
    "ends in a backslash \\",
    "\\\n\\\\\n\\\\\\",
    "  leading\n\n\n  lines\tand tabs  \n",
    "\u202eevil\u202c \u200b zero \x0b\x0c\u2028 é 😀",
    "{not json}",
]
WRITERS = [write_json, write_markdown]


def talk(*texts: str, title: str = "A title") -> Conversation:
    roles = ["user", "assistant"] * len(texts)
    messages: Any = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    return {"title": title, "messages": messages}


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_exported_is_imported_again(write: Any) -> None:
    draw = random.Random(0)
    pieces = [*"\\`*_[]<>&!|~$#+=.-)1 \n\t", "> ", "## You", "\n\n", "a", "é"]
    texts = NASTY + ["x" + "".join(draw.choices(pieces, k=12)) for _ in range(500)]
    for first in range(0, len(texts), 7):
        conversation = talk(*texts[first : first + 7], title=r"# <b> \ *t* {x}")
        assert read_conversation(write(conversation)) == conversation
    assert read_conversation("\ufeff" + write(talk("a\nb")).replace("\n", "\r\n")) == talk("a\nb")


def test_markdown_shows_what_was_typed() -> None:
    assert write_markdown(talk("a *b*\n1. c", "<d>")) == (
        "# A title\n\n## You\n\n> a \\*b\\*\\\n> 1\\. c\n\n## Wren\n\n> \\<d>\n"
    )


def test_json_is_a_record_of_our_format() -> None:
    record = json.loads(write_json(talk("a", "b")))
    assert parse_dialogue(record, "here", Counter())["messages"] == talk("a", "b")["messages"]


def test_a_missing_title_is_the_first_message() -> None:
    read = read_conversation(json.dumps({"messages": talk("  one\n two " * 30)["messages"]}))
    assert read["title"].startswith("one two one two")
    assert len(read["title"]) == 60


def message(**changes: Any) -> str:
    return json.dumps({"messages": [{"role": "user", "content": "a", **changes}]})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds 0 messages"),
        ("hello", "line 1 is 'hello'"),
        ("# t\n\n## Somebody\n\n> a", "line 3 is '## Somebody'"),
        ("# t\n\n## You\n\n> a\n\n> b", "line 7 is '> b'"),
        ("# t\n\n## You\n\n## Wren\n\n> b", "Message 1 .* 0 characters"),
        ("# t\n\n## Wren\n\n> a", "Message 1 .* wrong speaker"),
        ("{", "Expecting"),
        ("[]", "an object with messages"),
        ("[" * 100_000, "no conversation"),
        ("{}", "no messages"),
        ('{"messages": []}', "an empty list"),
        (message(role="root"), "role is 'root'"),
        (message(role="system"), r"cannot be shown \(system message\)"),
        (message(content=5), "content is a number"),
        (message(content=""), "Message 1 .* 0 characters"),
        (message(content="x" * (MAX_MESSAGE_CHARACTERS + 1)), "10,001 characters"),
        (message(content="\ud800"), "surrogates not allowed"),
        (message()[:-1] + ', "title": 5}', r"cannot be shown \(title\)"),
        (message()[:-1] + ', "title": "\\ud800"}', "surrogates not allowed"),
        (write_json(talk(*["a"] * (MAX_MESSAGES + 1))), "201 messages; allowed: 1 to 200"),
    ],
)
def test_what_is_no_conversation_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_conversation(text)


def test_the_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    secret = browser_secret(folder)
    assert len(secret) > 30
    assert browser_secret(folder) == secret
    assert browser_secret(tmp_path) != secret
    assert stat.S_IMODE((folder / "browser_secret").stat().st_mode) == 0o600


def given(rating: str, correction: str | None = None) -> dict[str, Any]:
    messages = talk("Hi there!", "Hello.", "Do you like cats?", "No.")["messages"]
    return {"messages": messages, "rating": rating, "correction": correction}


def test_a_like_keeps_the_conversation() -> None:
    record = feedback_record(given("like"))
    assert record == {"messages": given("like")["messages"], "rating": "like"}


def test_a_correction_takes_the_place_of_the_reply() -> None:
    record = feedback_record(given("dislike", " Yes, I do. "))
    assert (
        record["messages"]
        == talk("Hi there!", "Hello.", "Do you like cats?", "Yes, I do.")["messages"]
    )
    assert record["rejected"] == "No."


def test_of_a_long_conversation_the_newest_is_kept() -> None:
    messages = talk(*[f"message {number}" for number in range(202)])["messages"]
    record = feedback_record({"messages": messages, "rating": "like"})
    assert record["messages"] == messages[2:]


def test_of_a_dislike_nothing_is_learned(tmp_path: Path) -> None:
    """`chatbot prepare` takes the file, and leaves out what was only disliked."""
    path = tmp_path / "feedback.jsonl"
    keep_feedback(path, feedback_record(given("dislike")))
    assert json.loads(path.read_text("utf-8"))["rejected"] == "No."
    with pytest.raises(ValueError, match="no dialogue is left"):
        prepare([str(path)], tmp_path / "none", level="char")
    keep_feedback(path, feedback_record(given("dislike", "Yes, very much.")))
    report = prepare([str(path)], tmp_path / "data", level="char")
    assert report.dialogues["train"] == {"feedback": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {**given("like"), "rating": "love"},
        {**given("like"), "messages": []},
        {**given("like"), "messages": given("like")["messages"][:1]},
        {**given("like"), "messages": given("like")["messages"][:3]},
        {**given("like"), "correction": 5},
        {**given("like"), "correction": "x" * (MAX_MESSAGE_CHARACTERS + 1)},
        {**given("like"), "correction": "  "},
    ],
)
def test_what_is_no_rating_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"feedback: allowed|no text"):
        feedback_record(wrong)
