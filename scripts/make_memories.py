"""Make dialogues that teach to remember: facts that are asked for, names that change.

    python scripts/make_memories.py data/memories.jsonl --public TRAIN.jsonl.gz --seed 0

Four sources in one file of canonical records. `memories`: the user tells something, talks of other
things (beginnings of our sample conversations) and asks; a quarter asks for what was never told.
`renamed-conversations`: ours with other people, pets and towns; prepare with --no-near-duplicates,
or most go. `medleys`: openings of ours and questions about Wren, one after the other.
`interludes`: the same in the midst of public talk, so that Wren is itself wherever it is asked.
What is filled in is in scripts/talk (memories.yaml, wren.yaml); only the train split is used.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from chatbot.data import Message, clean_dialogue, find_files, read_dialogues, split_of
from chatbot.data.splits import dialogue_digest
from chatbot.hub_files import hub_config_path
from chatbot.tokenization import restore_case

LISTS = Path(__file__).parent / "talk" / "memories.yaml"
ABOUT = Path(__file__).parent / "talk" / "wren.yaml"
UNTOLD = 0.25  # share of the questions about what was never told
BLENDED = 0.3  # of the names are made of two: copying is learned where nothing is known by heart
ABOUT_WREN = 0.5  # of what is put into other talk
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
    """Draws dialogues from our lists and conversations. One seed gives the same ones."""

    def __init__(
        self,
        lists: dict[str, Any],
        about: list[dict[str, list[str]]],
        dialogues: list[list[Message]],
        seed: int,
    ):
        self.lists, self.kinds, self.values = lists, lists["kinds"], lists["values"]
        self.about = about
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
        """Two to five exchanges that stand alone, after other talk or at once."""
        return self._talk(self.draw.choice([0, 1, 2])) + self._exchanges(self.draw.randint(2, 5))

    def interlude(self, turns: list[Message]) -> list[str]:
        """Public talk, one to three exchanges that have nothing to do with it, and on it goes."""
        said = [message["content"] for message in turns]
        start = min(2 * self.draw.randint(1, 5), len(said) // 2 * 2)
        after = said[start : start + 2 * self.draw.choice([0, 0, 1, 2])]
        whole = [*said[:start], *self._exchanges(self.draw.randint(1, 3)), *after]
        return whole[: len(whole) // 2 * 2]

    def _exchanges(self, count: int) -> list[str]:
        """What stands alone in any talk: a question about Wren, or an opening, and the answer."""
        openings = self.draw.sample(self.openings, count)
        topics = self.draw.sample(self.about, count)
        return [
            text
            for opening, topic in zip(openings, topics, strict=True)
            for text in (self._about(topic) if self.draw.random() < ABOUT_WREN else opening)
        ]

    def _about(self, topic: dict[str, list[str]]) -> list[str]:
        before = self.draw.choice(["", "", self.draw.choice(self.lists["first"])])
        asked = self._typed(before + self.draw.choice(topic["asked"]))
        return [asked, self.draw.choice(topic["answered"])]

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


def make(
    count: int,
    variants: int,
    medleys: int,
    seed: int,
    public: Sequence[Path] = (),
    interludes: int = 0,
) -> Iterator[dict[str, Any]]:
    """Records: `count` with questions, so many of each conversation that has names, medleys, and
    interludes in dialogues of the `public` files."""
    own = [
        turns
        for file in find_files(hub_config_path("sample_conversations"))
        for turns in _read(file.path)
        if split_of(dialogue_digest(turns)) == "train"
    ]
    # beside a validation file, only those for test are held out of a train file
    talk = [
        turns
        for path in public
        for turns in _read(path)
        if split_of(dialogue_digest(turns)) != "test"
    ]
    lists, about = (yaml.safe_load(path.read_text("utf-8")) for path in (LISTS, ABOUT))
    maker = Maker(lists, about["topics"], own, seed)
    made = [("memories", maker.memory()) for _ in range(count)]
    made += [("renamed-conversations", maker.renamed(each)) for each in own * variants]
    made += [("medleys", maker.medley()) for _ in range(medleys)]
    if talk:
        some = maker.draw.sample(talk, min(interludes, len(talk)))
        made += [("interludes", maker.interlude(turns)) for turns in some]
    for source, said in made:
        both = zip(("user", "assistant") * len(said), said, strict=False)
        messages = [Message(role=role, content=text) for role, text in both]
        # one that is held out would take those like it out of the train split
        if messages and split_of(dialogue_digest(messages)) == "train":
            yield {"messages": messages, "source": source}


def _read(path: Path) -> Iterator[list[Message]]:
    """The dialogues of a file as they are after cleaning, where the user speaks first."""
    for _, record in read_dialogues(path):
        turns = clean_dialogue(record["messages"])
        if not isinstance(turns, str) and turns[0]["role"] == "user":
            yield turns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="file to write, *.jsonl")
    parser.add_argument("--count", type=int, default=6000, help="dialogues with questions (6000)")
    parser.add_argument("--variants", type=int, default=6, help="of each conversation (6)")
    parser.add_argument("--medleys", type=int, default=3000, help="of what stands alone (3000)")
    said = "dialogues of people to put something into, each beside its validation file"
    parser.add_argument("--public", nargs="+", type=Path, default=[], help=said)
    parser.add_argument("--interludes", type=int, default=4000, help="in public talk (4000)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    options = parser.parse_args()
    amounts = options.count, options.variants, options.medleys, options.seed
    records = [*make(*amounts, options.public, options.interludes)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    print(f"{options.output}: {len(records):,} dialogues")
