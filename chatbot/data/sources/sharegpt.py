"""ShareGPT: `{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", ...}]}`."""

from collections.abc import Iterator
from typing import Literal

from chatbot.data.records import DataError, Dialogue, Message, Skipped, SourceFile, kind
from chatbot.data.sources.options import SourceOptions
from chatbot.data.sources.rows import read_rows

_ROLES: dict[object, Literal["user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
_UNSPOKEN = ("system", "tool", "function_call", "function_response", "observation")


def read(
    file: SourceFile, options: SourceOptions, skipped: Skipped
) -> Iterator[tuple[int, Dialogue]]:
    """Line and dialogue of each record."""
    for line, row in read_rows(file, options):
        turns = row.get("conversations")
        if not isinstance(turns, list):
            raise DataError(
                f"{file.path}:{line}: conversations is {kind(turns)}; allowed: a list of "
                "objects with from and value"
            )
        messages = []
        for index, turn in enumerate(turns):
            where = f"{file.path}:{line}: conversations[{index}]"
            if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
                raise DataError(f"{where} is not an object with from and value, both strings")
            if turn.get("from") in _UNSPOKEN:
                skipped[f"{turn['from']} message"] += 1
            elif turn.get("from") in _ROLES:
                messages.append(Message(role=_ROLES[turn["from"]], content=turn["value"]))
            else:
                allowed = f"{', '.join(map(str, _ROLES))} (left out: {', '.join(_UNSPOKEN)})"
                raise DataError(f"{where}.from is {turn.get('from')!r}; allowed: {allowed}")
        yield line, {"messages": messages}
