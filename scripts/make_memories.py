"""Make dialogues that teach to remember: facts that are asked for, names that change.

    python scripts/make_memories.py data/memories.jsonl --seed 0

Three sources in one file of canonical records. `memories`: the user tells something, talks of other
things (beginnings of our sample conversations) and asks; a quarter asks for what was never told.
`renamed-conversations`: ours with other people, pets and towns; prepare with --no-near-duplicates,
or most go. `medleys`: openings of ours, one after the other, so that Wren is itself wherever in a
talk it is asked. What is filled in is in scripts/talk/memories.yaml; only the train split is used.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from chatbot.data import Message, find_files, read_dialogues, split_of
from chatbot.data.splits import dialogue_digest
from chatbot.hub_files import hub_config_path
from chatbot.tokenization import restore_case

LISTS = Path(__file__).parent / "talk" / "memories.yaml"
UNTOLD = 0.25  # share of the questions about what was never told
BLENDED = 0.3  # of the names are made of two: copying is learned where nothing is known by heart
EXCHANGED = ("woman", "man", "pet", "town")
# Talk that may tell what is asked for, or that is no time for games.
TELLING = re.compile(
    r"(?i)\b(names?|called|remember|jobs?|work\w*|hobby|favourites?|live|from|plans?|tomorrow|tonight"
    r"|weekend|told|forg[eo]t\w*|best|dogs?|cats?|sister|brother|wife|husband|son|daughter"
    r"|alive|d[iy]\w*ing|die[ds]?|dead|death|funeral|hurt\w*|no point|lonely|cancer)\b"
)
# What a medley may not hold: it would be forgotten, or remembered, at the next opening.
MINE = re.compile(r"(?i)\b(my|mine|me|i|i'm|i've|remember|told|said|again)\b")
Asked = tuple[str, str]  # kind, and whose or which


class Maker:
    """Draws dialogues from `memories.yaml` and our conversations. One seed gives the same ones."""

    def __init__(self, lists: dict[str, Any], dialogues: list[list[Message]], seed: int):
        self.lists, self.kinds, self.values = lists, lists["kinds"], lists["values"]
        self.draw = random.Random(seed)
        names = {name for group in EXCHANGED for name in self.values[group]}
        self.beginnings = [start for turns in dialogues if (start := _harmless(turns, names))]
        openings = [[message["content"] for message in turns[:2]] for turns in dialogues]
        self.openings = [
            said
            for said in openings
            if not MINE.search(said[0]) and not names & set(re.findall(r"\w+", " ".join(said)))
        ]

    def memory(self) -> list[str]:
        """What is said in a dialogue with a question at its end, the user first."""
        draw, (asked, told) = self.draw, self._facts()
        turns = self._talk(draw.choice([0, 0, 0, 1]))
        for fact in draw.sample([*told.items()], len(told)):
            turns += self._told(*fact)
        turns += self._talk(draw.randint(0, 5))
        turns += [self._question(asked), self._answer(asked, told.get(asked))]
        if asked not in told and draw.random() < 0.5:
            value = self._value(asked)
            turns += [self._statement(asked, value), draw.choice(self.lists["thanks"])]
            turns += [*self._talk(draw.randint(0, 2)), self._question(asked)]
            turns.append(self._answer(asked, value))
        return turns

    def renamed(self, turns: list[Message]) -> list[str]:
        """The same talk with other names, each changed alike; nothing where there is no name."""
        others, said = dict[str, str](), "\n".join(message["content"] for message in turns)
        # a name stands within a sentence once: "Pepper" may begin one otherwise
        within = set(re.findall(r"[a-z,] ([A-Z]\w+)", said))
        for values in (self.values[group] for group in EXCHANGED):
            found = [value for value in values if value in within and value not in others]
            free = [value for value in values if value not in said]
            others |= dict(zip(found, self.draw.sample(free, len(found)), strict=True))
        small = {name.lower(): other.lower() for name, other in others.items()}
        names, typed = re.compile(rf"\b({'|'.join(others)})\b", re.IGNORECASE), others | small
        said = (message["content"] for message in turns if others)
        return [names.sub(lambda found: typed.get(found[0], found[0]), text) for text in said]

    def medley(self) -> list[str]:
        """Two to five openings, after other talk or at once."""
        some = self.draw.sample(self.openings, self.draw.randint(2, 5))
        return [*self._talk(self.draw.choice([0, 1, 2])), *(text for said in some for text in said)]

    def _facts(self) -> tuple[Asked, dict[Asked, str]]:
        """What is asked, and all that was told."""
        kinds = self.draw.choices([*self.kinds, "name", "name", "pet", "person"], k=3)
        facts = [(kind, self.draw.choice([*self.kinds[kind].get("who", [""])])) for kind in kinds]
        told = facts[: self.draw.randint(1, 2)]
        if self.draw.random() < UNTOLD:
            told = [fact for fact in facts[1 : self.draw.randint(1, 3)] if fact != facts[0]]
        return facts[0], {fact: self._value(fact) for fact in told}

    def _value(self, asked: Asked) -> str:
        kind = self.kinds[asked[0]]
        group = kind["who"][asked[1]] if "who" in kind else self.draw.choice(kind["values"])
        one, other = self.draw.choices(self.values[group], k=2)
        if group in EXCHANGED and self.draw.random() < BLENDED:
            return one[: len(one) // 2] + other[len(other) // 2 :]
        return one

    def _told(self, asked: Asked, value: str) -> list[str]:
        """The fact and what Wren says to it, or the fact in passing, before other talk."""
        statement, (user, bot) = self._statement(asked, value), self._talk(1)
        if self.draw.random() < 0.3:
            return [f"{statement.rstrip('.')}. {user}", bot]
        heard = self.draw.choice(self.kinds[asked[0]]["heard"])
        return [statement, restore_case(heard.format(value, who=asked[1]))]

    def _statement(self, asked: Asked, value: str) -> str:
        text = self.draw.choice(self.kinds[asked[0]]["tell"]).format(value, who=asked[1])
        after = self.draw.choice(["", "", self.draw.choice(self.lists["after"])])
        before = self.draw.choice(["", self.draw.choice(self.lists["before"])])
        return self._typed(before + text + after)

    def _question(self, asked: Asked) -> str:
        text = self.draw.choice(self.kinds[asked[0]]["ask"]).format(who=asked[1])
        return self._typed(self.draw.choice(["", self.draw.choice(self.lists["first"])]) + text)

    def _answer(self, asked: Asked, value: str | None) -> str:
        kind, gaps = self.kinds[asked[0]], {"who": asked[1]}
        gaps |= {name: kind[name].format(**gaps) for name in ("what", "back")}
        texts = self.lists["untold"] if value is None else kind["answer"]
        return restore_case(self.draw.choice(texts).format(value, **gaps))

    def _typed(self, text: str) -> str:
        """As people type: with care, in lower case, or without the last sign."""
        return self.draw.choice([restore_case(text), text.lower(), text.lower().rstrip(".?!")])

    def _talk(self, exchanges: int) -> list[str]:
        return self.draw.choice(self.beginnings)[: 2 * exchanges]


def _harmless(turns: list[Message], names: set[str]) -> list[str]:
    """The turns of a dialogue up to the first that may tell what is asked for."""
    said = [message["content"] for message in turns]
    for turn, text in enumerate(said):
        if TELLING.search(text) or names & set(re.findall(r"\w+", text)):
            return said[: turn // 2 * 2]
    return said


def make(count: int, variants: int, medleys: int, seed: int) -> Iterator[dict[str, Any]]:
    """Records: `count` with questions, so many of each conversation that has names, and medleys."""
    paths = [file.path for file in find_files(hub_config_path("sample_conversations"))]
    every = [record["messages"] for path in paths for _, record in read_dialogues(path)]
    own = [turns for turns in every if split_of(dialogue_digest(turns)) == "train"]
    maker = Maker(yaml.safe_load(LISTS.read_text("utf-8")), own, seed)
    made = [("memories", maker.memory()) for _ in range(count)]
    made += [("renamed-conversations", maker.renamed(each)) for each in own * variants]
    made += [("medleys", maker.medley()) for _ in range(medleys)]
    for source, said in made:
        both = zip(("user", "assistant") * len(said), said, strict=False)
        messages = [Message(role=role, content=text) for role, text in both]
        # one that is held out would take those like it out of the train split
        if messages and split_of(dialogue_digest(messages)) == "train":
            yield {"messages": messages, "source": source}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="file to write, *.jsonl")
    parser.add_argument("--count", type=int, default=6000, help="dialogues with questions (6000)")
    parser.add_argument("--variants", type=int, default=6, help="of each conversation (6)")
    parser.add_argument("--medleys", type=int, default=1500, help="of openings (1500)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    options = parser.parse_args()
    records = [*make(options.count, options.variants, options.medleys, options.seed)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    print(f"{options.output}: {len(records):,} dialogues")
