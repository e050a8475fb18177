"""Who is the bot: from named speakers to the roles of messages."""

from collections.abc import Hashable, Iterable, Iterator
from itertools import groupby, islice

from chatbot.data.records import DataError, Dialogue, Message

# A source without borders between dialogues is cut here: even, so that turns go on alternating.
MAX_TURNS = 200
_BOTS = {"assistant", "bot", "chatbot", "gpt", "model", "agent", "system"}
_USERS = {"user", "human", "customer", "client", "you"}

Turn = tuple[str, str]
"""Speaker and text."""


def gather(
    turns: Iterable[tuple[int, Hashable, Turn]],
) -> Iterator[tuple[int, list[Turn]]]:
    """Consecutive turns with the same key as one dialogue, or several where it is very long."""
    for _, run in groupby(turns, key=lambda turn: turn[1]):
        while part := list(islice(run, MAX_TURNS)):
            yield part[0][0], [turn for _, _, turn in part]


def alternate(turns: Iterable[str]) -> Dialogue:
    """Turns by position: the user first, then the bot, and so on."""
    return {
        "messages": [
            Message(role="assistant" if index % 2 else "user", content=text)
            for index, text in enumerate(turns)
        ]
    }


def cast(
    dialogues: Iterable[tuple[int, list[Turn]]], bot: str | None, *, where: object, once: bool
) -> Iterator[tuple[int, Dialogue]]:
    """Dialogues with the bot as the assistant and everybody else as the user.

    Without a name, the bot is who has a name like "assistant", else who is not called "user" or
    the like, else who speaks second: in each dialogue anew, or `once` for them all.

    Raises:
        DataError: `bot` never speaks.
    """
    chosen = bot and bot.casefold()
    heard: dict[str, str] = {}  # in the order in which they first spoke
    for line, turns in dialogues:
        here = {speaker.casefold(): speaker for speaker, _ in turns}
        heard |= here
        if bot is None and not (once and chosen):
            chosen = _choose_bot(list(heard if once else here))
        messages = [
            Message(role="assistant" if speaker.casefold() == chosen else "user", content=text)
            for speaker, text in turns
        ]
        name = here.get(chosen or "")
        yield line, {"messages": messages} if name is None else {"messages": messages, "bot": name}
    if bot is not None and chosen not in heard:
        names = ", ".join([*heard.values()][:20])
        raise DataError(f"{where}: nobody is called {bot!r} (bot); allowed: {names}")


def _choose_bot(names: list[str]) -> str | None:
    bots = [name for name in names if name in _BOTS]
    others = [name for name in names if name not in _USERS]
    if bots or len(others) < len(names):
        return next(iter(bots or others), None)
    return names[1] if len(names) > 1 else None
