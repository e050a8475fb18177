"""What people think of replies, kept as a file that `chatbot train --data` reads."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chatbot.app import strings
from chatbot.app.conversation import read_history
from chatbot.app.library import MAX_MESSAGES
from chatbot.chat import MAX_MESSAGE_CHARACTERS

DEFAULT_FEEDBACK = Path("feedback.jsonl")
RATINGS = ("like", "dislike")


def feedback_record(given: object) -> dict[str, Any]:
    """A line of the file, of what the page sends: `messages` up to the reply that is meant, a
    `rating`, and, where there is one, a `correction` of it.

    A correction takes the reply's place, and what was said stands under `rejected`. What was
    disliked without one leaves the message without its reply, of which nothing is learned.

    Raises:
        ValueError: It is nothing of the kind; the message says what is allowed.
    """
    if not isinstance(given, Mapping) or given.get("rating") not in RATINGS:
        raise ValueError(strings.UNKNOWN_RATING)
    messages = read_history(given.get("messages"))[-MAX_MESSAGES:]
    correction = given.get("correction")
    said = [message["content"] for message in messages]
    said += [] if correction is None else [correction]
    if not 1 < len(messages) <= MAX_MESSAGES or messages[-1]["role"] != "assistant":
        raise ValueError(strings.UNKNOWN_RATING)
    if not all(isinstance(text, str) and len(text) <= MAX_MESSAGE_CHARACTERS for text in said):
        raise ValueError(strings.UNKNOWN_RATING)
    *before, reply = messages
    if correction is not None:
        corrected = {"role": "assistant", "content": str(correction).strip()}
        if not corrected["content"]:
            raise ValueError(strings.BLANK)
        return {"messages": [*before, corrected], "rating": "dislike", "rejected": reply["content"]}
    if given["rating"] == "like":
        return {"messages": messages, "rating": "like"}
    return {
        "messages": before[-1:],
        "rating": "dislike",
        "rejected": reply["content"],
        "before": before[:-1],
    }


def keep_feedback(path: Path, record: Mapping[str, Any]) -> None:
    """Append a line. Readable by its owner alone; lines of several threads never mix."""
    line = json.dumps(record, ensure_ascii=False) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode("utf-8"))
    finally:
        os.close(file)


def rating_function(path: Path) -> Callable[[Any], dict[str, str]]:
    """What the page calls to have a rating kept."""

    def rate(given: Any) -> dict[str, str]:
        try:
            keep_feedback(path, feedback_record(given))
        except (OSError, ValueError) as error:
            return {"error": str(error)}
        return {}

    return rate
