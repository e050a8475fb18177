"""How a model talks: memory, honesty, one voice, variety, and a sheet for blind ratings.

    python scripts/talk.py runs/released/model                        memory, honesty, voice
    python scripts/talk.py MODEL --preset careful --data data/mix     500 contexts of its validation
    python scripts/talk.py MODEL --sheet ratings.jsonl                replies to scripts/prompts.txt
    python scripts/talk.py --ratings ratings.jsonl                    what was rated

The dialogues in scripts/talk are ours, were written before the model was trained, and hold no value
or wording that scripts/make_memories.py uses (those of recall.jsonl use its wordings). What counts:

- recall.jsonl, wordings.jsonl: the words of what the user told stand side by side in the reply.
- untold.jsonl: the reply says that it does not know or was not told (`NOT_KNOWN`).
- identity.jsonl: the reply has one of the accepted words or phrases, and none of the refused. They
  are asked at every second of ten turns, between prompts, with the model's own replies as history.
- prompts.txt, rated by a person who does not see the preset: 0 nonsense, off the point or unkind,
  1 fits but dull, 2 fits and says something.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chatbot.checkpoints import load_chatbot
from chatbot.data import load_prepared
from chatbot.decoding import generate_replies
from chatbot.evaluation import predict
from chatbot.metrics import bootstrap_interval, commonest_share, distinct, loop_rate, unique_rate
from chatbot.presets import generation_preset, generation_presets

FOLDER = Path(__file__).parent / "talk"
PROMPTS = Path(__file__).parent / "prompts.txt"
NOT_KNOWN = re.compile(
    r"\b(t|not|cannot|never) (?!you )(\w+ ){0,3}"
    r"(told|tell|said|say|mention\w*|heard|talked|know|remember|guess|sure|idea|clue)\b"
    r"|\b(no (idea|clue|memory)|not yet|be guessing|kept that)\b"
)
RUBRIC = "0: nonsense, off the point or unkind. 1: fits, but dull. 2: fits and says something."
CONTEXTS = 500
BATCH = 16  # conversations that are answered at once
Conversation = list[dict[str, str]]
Answer = Callable[[Sequence[Conversation]], list[str]]
Row = dict[str, Any]


def spoken(text: str) -> str:
    """Lower-cased words between single spaces."""
    return f" {re.sub(r'[^a-z0-9]+', ' ', text.lower()).strip()} "


def recalls(reply: str, value: str) -> bool:
    """Whether what was told is said, as whole words."""
    return spoken(value) in spoken(reply)


def admits(reply: str) -> bool:
    """Whether the reply says that it does not know."""
    return NOT_KNOWN.search(spoken(reply)) is not None


def in_voice(reply: str, accepted: Sequence[str], refused: Sequence[str]) -> bool:
    """Whether it is an answer of the one voice: an accepted phrase, and no refused one."""
    said = spoken(reply)
    accepts, refuses = (any(spoken(p) in said for p in each) for each in (accepted, refused))
    return accepts and not refuses


def share(right: Sequence[float]) -> str:
    """A percentage, its 95 % interval, and of how many."""
    low, high = bootstrap_interval([float(each) for each in right])
    value = sum(right) / len(right)
    return f"{value:6.1%}  [{low:.1%}, {high:.1%}] of {len(right)}"


def measure_memory(answer: Answer, told: Sequence[Row], worded: Sequence[Row]) -> dict[str, str]:
    """Recall by the turns since it was told, and in wordings apart from the training's."""
    found = {}
    for turns in sorted({row["turns"] for row in told}):
        rows = [row for row in told if row["turns"] == turns]
        found[f"recall after {turns}"] = share(_recalled(answer, rows))
    return {**found, "recall in other wordings": share(_recalled(answer, worded))}


def _recalled(answer: Answer, rows: Sequence[Row]) -> list[bool]:
    replies = answer([row["messages"] for row in rows])
    return [recalls(reply, row["value"]) for reply, row in zip(replies, rows, strict=True)]


def measure_voice(
    answer: Answer, questions: Sequence[Row], prompts: Sequence[str], chats: int
) -> dict[str, str]:
    """Answers about itself in chats of ten turns: each of them, and chats where all count."""
    talks: list[Conversation] = [[] for _ in range(chats)]
    draws = [random.Random(number) for number in range(chats)]
    asked = [draw.sample(list(questions), 5) for draw in draws]
    right = []
    for turn in range(10):
        own = [five[turn // 2] for five in asked]
        for talk, draw, question in zip(talks, draws, own, strict=True):
            text = question["question"] if turn % 2 else draw.choice(prompts)
            talk.append({"role": "user", "content": text})
        replies = answer(talks)
        for talk, reply in zip(talks, replies, strict=True):
            talk.append({"role": "assistant", "content": reply})
        if turn % 2:
            pairs = zip(replies, own, strict=True)
            right.append([in_voice(said, q["accepted"], q["refused"]) for said, q in pairs])
    return {
        # the answers of one chat are not independent: a chat counts as one
        "one voice, answers": share([sum(chat) / len(chat) for chat in zip(*right, strict=True)]),
        "one voice, whole chats": share([all(chat) for chat in zip(*right, strict=True)]),
    }


def measure_variety(replies: Sequence[str]) -> dict[str, str]:
    """Of replies to different contexts."""
    return {
        "unique replies": f"{unique_rate(replies):.3f}",
        "commonest ten": f"{commonest_share(replies):.3f}",
        "distinct-2": f"{distinct(replies, 2):.3f}",
        "with a repeated trigram": f"{sum(loop_rate(reply) > 0 for reply in replies)}",
        "words a reply": f"{sum(len(reply.split()) for reply in replies) / len(replies):.1f}",
    }


def blind_sheet(replies: dict[str, Sequence[str]], prompts: Sequence[str]) -> tuple[list[Row], Row]:
    """Rows to rate in a drawn order, and the key: which preset said which."""
    pairs = [(name, *pair) for name in replies for pair in zip(prompts, replies[name], strict=True)]
    random.Random(0).shuffle(pairs)
    rows = [
        {"id": number, "prompt": prompt, "reply": reply, "rating": None}
        for number, (_, prompt, reply) in enumerate(pairs)
    ]
    return [{"rubric": RUBRIC}, *rows], {str(n): name for n, (name, *_) in enumerate(pairs)}


def sum_ratings(rows: Sequence[Row], key: Row) -> dict[str, str]:
    """Mean rating and share of zeros of each preset. ValueError: a rating other than 0, 1, 2."""
    rated: dict[str, list[int]] = {}
    for row in rows[1:]:
        if row["rating"] not in (0, 1, 2):
            raise ValueError(f"rating of {row['id']} is {row['rating']!r}; allowed: 0, 1, 2")
        rated.setdefault(key[str(row["id"])], []).append(row["rating"])
    found = {}
    for name, ratings in sorted(rated.items()):
        low, high = bootstrap_interval(ratings)
        counts = Counter(ratings)
        found[f"{name}, mean"] = f"{sum(ratings) / len(ratings):.2f}  [{low:.2f}, {high:.2f}]"
        found[f"{name}, 0 / 1 / 2"] = " / ".join(str(counts[rating]) for rating in range(3))
        found[f"{name}, rated 0"] = share([rating == 0 for rating in ratings])
    return found


def read(path: Path) -> list[Row]:
    """Records, a line each."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _measure(options: argparse.Namespace) -> None:
    """Print what was asked for."""
    model, tokenizer = load_chatbot(options.model)
    prompts = PROMPTS.read_text("utf-8").splitlines()

    def replies(name: str, talks: Sequence[Conversation]) -> list[str]:
        parts = [talks[start : start + BATCH] for start in range(0, len(talks), BATCH)]
        preset = generation_preset(name)
        return [r for part in parts for r in generate_replies(model, tokenizer, part, preset)]

    def answer(talks: Sequence[Conversation]) -> list[str]:
        return replies(options.preset, talks)

    if options.sheet:
        talks = [[{"role": "user", "content": prompt}] for prompt in prompts]
        rows, key = blind_sheet({name: replies(name, talks) for name in options.presets}, prompts)
        options.sheet.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
        options.sheet.with_suffix(".key.json").write_text(json.dumps(key), "utf-8")
        return
    if options.data:
        examples = load_prepared(options.data, tokenizer)["validation"]
        step = max(1, len(examples) // CONTEXTS)
        some = examples.select(range(0, len(examples), step)[:CONTEXTS])
        for name, preset in generation_presets().items():
            records = predict(model, tokenizer, some, preset)
            show({name: "", **measure_variety([record["prediction"] for record in records])})
        return
    told, worded, untold, identity = (
        read(FOLDER / f"{name}.jsonl")[: options.limit]
        for name in ("recall", "wordings", "untold", "identity")
    )
    show(measure_memory(answer, told, worded))
    honest = [admits(reply) for reply in answer([row["messages"] for row in untold])]
    show({"says it was not told": share(honest)})
    show(measure_voice(answer, identity, prompts, options.chats))


def show(measures: dict[str, str]) -> None:
    """Print a line each."""
    for name, value in measures.items():
        print(f"{name:28}{value}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, help="folder (the shipped model)")
    parser.add_argument("--preset", default="lively", help="of memory, honesty, voice (lively)")
    parser.add_argument("--chats", type=int, default=100, help="of ten turns (100)")
    parser.add_argument("--limit", type=int, help="dialogues of each file (all)")
    parser.add_argument("--data", type=Path, help="prepared folder: variety of each preset instead")
    parser.add_argument("--sheet", type=Path, help="file to write for blind ratings instead")
    parser.add_argument("--presets", nargs="+", default=["lively", "careful"], help="on the sheet")
    parser.add_argument("--ratings", type=Path, help="sheet to sum up instead")
    given = parser.parse_args()
    if given.ratings:
        key = given.ratings.with_suffix(".key.json").read_text("utf-8")
        show(sum_ratings(read(given.ratings), json.loads(key)))
    else:
        _measure(given)
