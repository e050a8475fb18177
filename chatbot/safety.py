"""What a person writes is checked for self-harm, and what the bot says for slurs.

Both are lists in `hub_config/safety.yaml`: patterns of sentences for the one, hashed words for the
other, so that nobody reads them by accident. A list knows what stands in it and no more:
docs/safety.md says how much that is. Nothing is kept or sent anywhere.
"""

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import yaml

from chatbot.hub_files import hub_config_path

_WORD = re.compile(r"[^\W_]+")
# What is written for a letter to get past a list.
_DISGUISES = str.maketrans("013457@$!’", "oieastasi'")
_APOSTROPHES = str.maketrans("’‘`´", "''''")


@dataclass(frozen=True)
class Lists:
    """`hub_config/safety.yaml`, read once.

    Args:
        self_harm: What a message in danger says.
        harmless: What says the same words and means no harm: cut out first.
        help: The answer to such a message.
        slurs: Hashes of words.
        withheld: What is said in place of a reply that holds one.
    """

    self_harm: re.Pattern[str]
    harmless: re.Pattern[str]
    help: str
    slurs: frozenset[str]
    withheld: str


def check_message(text: str) -> str | None:
    """What to answer to a message that speaks of harming oneself; None for any other."""
    lists = _lists()
    said = " ".join(text.lower().translate(_APOSTROPHES).split())
    # a full stop in its place keeps what stands before and after apart
    return lists.help if lists.self_harm.search(lists.harmless.sub(".", said)) else None


def check_reply(text: str) -> str | None:
    """What to say in place of a reply that holds a slur; None for any other."""
    lists = _lists()
    words = _WORD.findall(text.lower()) + _WORD.findall(text.lower().translate(_DISGUISES))
    return None if lists.slurs.isdisjoint(map(hashed, words)) else lists.withheld


def hashed(word: str) -> str:
    """How a slur stands in the list."""
    return sha256(word.encode()).hexdigest()[:16]


@cache
def _lists() -> Lists:
    given = yaml.safe_load(hub_config_path("safety.yaml").read_text("utf-8"))
    return Lists(
        self_harm=re.compile("|".join(given["self_harm"])),
        harmless=re.compile("|".join(given["harmless"])),
        help=given["help"],
        slurs=frozenset(given["slurs"]),
        withheld=given["withheld"],
    )
