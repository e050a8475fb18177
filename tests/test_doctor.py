"""The doctor: each broken model gets its own row first, a good one is good, and sums by hand.

The models are trained here, in seconds, on dialogues of a small invented café.
"""

import copy
import json
import math
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from chat_helpers import Chatbot, make_fixed_chatbot, write_dialogues
from datasets import load_from_disk
from docs_helpers import table
from transformers import AutoTokenizer, DataCollatorForSeq2Seq

from chatbot import doctor
from chatbot.chat import FALLBACK, ChatSession
from chatbot.checkpoints import save_chatbot
from chatbot.cli import main
from chatbot.data import Message, is_test, load_prepared, prepare
from chatbot.doctor import MEASURES, Examination, Measure, coverage_curve, examine
from chatbot.metrics import ngrams
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import CHAT_TEMPLATE

NAMES = ["anna", "ben", "carla", "david", "emma", "frank", "greta", "hugo", "ida", "jonas", "leo"]
DISHES = {
    "tea": "is hot and green", "coffee": "keeps you awake", "soup": "needs more salt",
    "bread": "comes fresh at seven", "cheese": "smells of old socks", "rice": "takes a while",
    "fish": "swam this morning", "cake": "has nine candles", "pizza": "burns your tongue",
    "salad": "grows behind our house", "honey": "was made by bees", "juice": "stains each shirt",
    "milk": "turned sour yesterday", "pasta": "sticks to walls", "pie": "breaks so easily",
    "garlic": "frightens vampires", "butter": "melts quickly here", "ginger": "warms cold feet",
}  # fmt: skip
GREETINGS = {
    "hello, i am {}": "welcome {}, what do you need?",
    "good morning, my name is {}": "take a seat, {}.",
    "hi, {} here": "{}, how can we help?",
}
QUESTIONS = ("how is the {}?", "what about {}?", "tell me about the {}")
ONE_REPLY = "we are open from nine to five."
Dialogues = list[list[Message]]
Case = tuple[Chatbot, Path]


def messages(*texts: str) -> list[Message]:
    """A dialogue that the user begins."""
    roles = ("user", "assistant") * len(texts)
    return [Message(role=role, content=text) for role, text in zip(roles, texts, strict=False)]


def cafe(count: int, seed: int) -> Dialogues:
    """The second reply needs the last message for its dish, and the first one for its name."""
    draw, dialogues = random.Random(seed), list[list[Message]]()
    while len(dialogues) < count:
        name, dish = draw.choice(NAMES), draw.choice(list(DISHES))
        hello, question = draw.choice(list(GREETINGS)), draw.choice(QUESTIONS).format(dish)
        answer = f"our {dish} {DISHES[dish]}, {name}."
        dialogue = messages(hello.format(name), GREETINGS[hello].format(name), question, answer)
        if not is_test(dialogue):
            dialogues.append(dialogue)
    return dialogues


TRAIN, VALIDATION = cafe(300, seed=1), cafe(60, seed=2)


def prepared(folder: Path, train: Dialogues, validation: Dialogues, **options: Any) -> Path:
    """A folder of `chatbot prepare`, of words, all dialogues kept."""
    for name, dialogues in (("train", train), ("validation", validation)):
        write_dialogues(folder / "source" / f"{name}.jsonl", dialogues)
    keep = dict.fromkeys(("duplicates", "near_duplicates", "leaks"), False)
    kind = {} if "tokenizer" in options else {"level": "word"}
    prepare([folder / "source"], folder / "data", clean=keep, num_proc=1, **kind, **options)
    return folder / "data"


def fit(data: Path, steps: int, batch: int = 32, **settings: Any) -> Chatbot:
    """A small model after so many steps, and its tokenizer."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    rows = load_prepared(data)["train"].select_columns(["input_ids", "labels"]).to_list()
    sizes = {"embedding_size": 48, "hidden_size": 48, "dropout": 0.0, "initializer_range": 0.3}
    config = RnnSeq2SeqConfig(vocab_size=len(tokenizer), **sizes | settings)
    model = RnnSeq2SeqForConditionalGeneration(config)
    collate, draw = DataCollatorForSeq2Seq(tokenizer, model), random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        model(**collate(draw.choices(rows, k=batch))).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Case:
    data = prepared(tmp_path_factory.mktemp("good"), TRAIN, VALIDATION)
    return fit(data, steps=150), data


@pytest.fixture(scope="module")
def healthy(good: Case) -> Examination:
    return examine(*good[0], good[1], limit=80)


# Broken models


def untrained(_: Path, data: Path) -> Case:
    return fit(data, steps=0, initializer_range=0.05), data


def shuffled_labels(folder: Path, _: Path) -> Case:
    def deal(dialogues: Dialogues) -> Dialogues:
        replies = [turns[place]["content"] for turns in dialogues for place in (1, 3)]
        random.Random(0).shuffle(replies)
        return [
            messages(turns[0]["content"], replies.pop(), turns[2]["content"], replies.pop())
            for turns in dialogues
        ]

    data = prepared(folder, deal(TRAIN), deal(VALIDATION))
    return fit(data, steps=60), data


def tiny_vocabulary(folder: Path, _: Path) -> Case:
    data = prepared(folder, TRAIN, VALIDATION, vocab_size=60)
    return fit(data, steps=60), data


def one_reply(folder: Path, _: Path) -> Case:
    def same(dialogues: Dialogues) -> Dialogues:
        return [
            messages(a["content"], ONE_REPLY, b["content"], ONE_REPLY) for a, _, b, _ in dialogues
        ]

    data = prepared(folder, same(TRAIN), same(VALIDATION))
    return fit(data, steps=40), data


def encoder_cut_off(_: Path, data: Path) -> Case:
    return fit(data, steps=60, attention="none", bridge="zero"), data


def encoder_without_weights(_: Path, data: Path) -> Case:
    model, tokenizer = fit(data, steps=60)
    with torch.no_grad():
        for parameter in model.get_encoder().stack.parameters():
            parameter.zero_()
    return (model, tokenizer), data


def overfitted(folder: Path, data: Path) -> Case:
    few = prepared(folder, TRAIN[:5], VALIDATION, tokenizer=data / "tokenizer")
    return fit(few, steps=100, batch=10), few


def template_without_speakers(_: Path, data: Path) -> Case:
    model, tokenizer = fit(data, steps=40)
    speakers = "{{- '<user>' if message['role'] == 'user' else '<bot>' }}"
    assert speakers in CHAT_TEMPLATE
    tokenizer.chat_template = CHAT_TEMPLATE.replace(speakers, "")
    return (model, tokenizer), data


def labels_without_end(folder: Path, data: Path) -> Case:
    cut = shutil.copytree(data, folder / "data")
    for split in ("train", "validation"):
        rows = load_from_disk(str(data / split))
        endless = rows.map(lambda row: {"labels": row["labels"][:-1]}, keep_in_memory=True)
        endless.save_to_disk(str(cut / split))
    return fit(cut, steps=40), cut


BROKEN: dict[Callable[[Path, Path], Case], str] = {
    untrained: "learned",
    shuffled_labels: "context",
    tiny_vocabulary: "unknown",
    one_reply: "sameness",
    encoder_cut_off: "reach",
    encoder_without_weights: "reach",
    overfitted: "gap",
    template_without_speakers: "template",
    labels_without_end: "template",
}


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda each: each.__name__)
def test_a_broken_model_gets_the_right_row_first(
    break_it: Callable[[Path, Path], Case], good: Case, tmp_path: Path
) -> None:
    chatbot, data = break_it(tmp_path, good[1])
    found = examine(*chatbot, data, limit=80)
    verdict, measure = found.findings[0]
    assert (verdict, measure.key) == ("broken", BROKEN[break_it]), str(found)
    assert str(found).startswith("broken, by 80 replies")


def test_a_good_model_is_good(healthy: Examination) -> None:
    assert {verdict for verdict, _ in healthy.findings} == {"good"}, str(healthy)
    assert [measure for _, measure in healthy.findings] == list(MEASURES)
    assert "why:" not in str(healthy)


def test_nothing_is_left_in_the_data(good: Case) -> None:
    before = sorted(good[1].rglob("*"))
    examine(*good[0], good[1], limit=2)
    assert sorted(good[1].rglob("*")) == before


# The table


@pytest.mark.parametrize("measure", MEASURES, ids=lambda each: each.key)
def test_thresholds_part_the_verdicts(measure: Measure) -> None:
    worse = 1e-9 if measure.broken > measure.weak else -1e-9
    for limit, below, beyond in (
        (measure.weak, "good", "weak"),
        (measure.broken, "weak", "broken"),
    ):
        assert measure.verdict(limit) == below
        assert measure.verdict(limit + worse) == beyond


def test_the_table_of_the_docs_is_that_of_the_code(repository: Path) -> None:
    text = (repository / "docs" / "first-aid.md").read_text("utf-8")
    columns = ("row", "you see", "why", "what to do", "weak", "broken")
    documented = [[row[name] for name in columns] for row in table(text, *columns) if row["row"]]
    assert documented == [
        [text.strip("`") for text in (m.key, m.seen, m.why, m.advice, *limits(m))] for m in MEASURES
    ]
    measured = [list(row.values()) for row in table(text, "row", "what is measured")]
    assert measured == [[m.key, m.what.strip("`")] for m in MEASURES]


def limits(measure: Measure) -> list[str]:
    """The thresholds as the docs write them."""
    sign = "above" if measure.broken > measure.weak else "below"
    return [f"{sign} {limit:g}" for limit in (measure.weak, measure.broken)]


def test_the_worst_comes_first_and_causes_before_symptoms() -> None:
    values = {measure.key: measure.weak for measure in MEASURES}
    values |= {"loops": 0.1, "learned": 1.0, "commonest": 1.0, "last turn": 0.0, "gap": 1.5}
    del values["copies"]
    found = Examination("validation", 9, values, []).findings
    assert [measure.key for verdict, measure in found if verdict != "good"] == [
        "learned", "last turn", "commonest", "gap", "loops",
    ]  # fmt: skip
    assert len(found) == len(MEASURES) - 1


# Sums by hand


def test_coverage_by_hand() -> None:
    sure = [0.9, 0.2, 0.6, 0.4]
    replies = ["At nine!", "no", "yes we do", "blue"]
    references = ["at nine", "yes", "yes", "blue."]
    curve = coverage_curve(sure, replies, references)
    assert [point["threshold"] for point in curve[::3]] == [0.2, 0.3, 0.5, 0.75]
    assert [point["answered"] for point in curve[::3]] == [1, 0.75, 0.5, 0.25]
    assert [point["right"] for point in curve[::3]] == pytest.approx([0.5, 2 / 3, 0.5, 1])
    # word F1 of "yes we do" with "yes": 2 x 1 / (3 + 1)
    assert [point["f1"] for point in curve[::3]] == pytest.approx([2.5 / 4, 2.5 / 3, 0.75, 1])


def test_the_most_confident_reply_is_never_declined() -> None:
    assert {point["answered"] for point in coverage_curve([0.99996] * 3, ["a"] * 3, ["a"] * 3)} == {
        1
    }


def test_a_model_that_hears_nothing_by_hand(tmp_path: Path) -> None:
    """It says "a" with 3/4 and ends with 1/4, whatever it reads; the data say nothing but "a"."""
    model, tokenizer = make_fixed_chatbot({"a": 0.75, "<end>": 0.25})
    turns = [messages(f"number {i}", "a", f"and {i}", "a") for i in range(20)]
    turns = [dialogue for dialogue in turns if not is_test(dialogue)]
    data = prepared(tmp_path, turns, turns, tokenizer=tokenizer)
    found = examine(model, tokenizer, data, limit=300)
    assert found.replies == 2 * len(turns)
    nats = (math.log(4 / 3) + math.log(4)) / 2
    # a count of `a` and of `<end>` for each reply, and one more for each of the vocabulary
    counted = (found.replies + 1) / (2 * found.replies + len(tokenizer))
    wrong = {"learned": math.exp(nats) * counted, "sameness": 1.0, "commonest": 1.0}
    right = {"unique": 1.0, "length": 1.0}
    nothing = dict.fromkeys([measure.key for measure in MEASURES], 0.0)
    assert found.values == pytest.approx(nothing | wrong | right, abs=1e-6)
    (only,) = {tuple(point.values()) for point in found.curve}
    assert only == (0.75, 1, 0, 0)  # it never ends: aaaa


@pytest.mark.parametrize("unknown", ["input_ids", "labels", "free"])
def test_replies_are_counted_by_hand(
    tiny_chatbot: Chatbot, monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    model, tokenizer = tiny_chatbot
    rows = {name: [[7, 3], [8, 3], [9, 3]] for name in ("input_ids", "labels", "free")}
    asked = ["<user>i like my old dog<end><bot>", "<user>hello<end><bot>", "<user>why?<end><bot>"]
    rows["input_ids"] = tokenizer(asked, add_special_tokens=False)["input_ids"]
    size = sum(map(len, rows[unknown]))
    rows[unknown][0][0] = tokenizer.unk_token_id
    said = ["i like my old cat", "very very very very", "I do not know"]
    monkeypatch.setattr(doctor, "_greedy", lambda *_, **__: rows["free"])
    held = {**rows, "said": said, "reply": ["yes", "Yes!", "it is so because it is"]}
    values = doctor._replies(model, tokenizer, held)
    assert {name: float(np.mean(value)) for name, value in values.items()} == pytest.approx(
        {
            "unknown": 1 / size,
            "sameness": 2 / 3,
            "change": 1,
            "unique": 1 / (2 / 3),
            "commonest": 1 / 3,
            "loops": (1 / 2) / 3,  # very very very, twice
            "copies": (2 / 3) / 3,  # i like my, like my old; not: my old cat
            "dull": 1 / 3,
            "length": 13 / 8,
        }
    )


def test_contexts_are_tampered_with_as_it_is_said(
    tiny_chatbot: Chatbot, good: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = ["<user>a<end><bot>b<end><user>c<end><bot>", "<user>d<end><bot>"]
    read: list[list[str]] = []

    def score(_: object, tokenizer: Any, rows: list[list[int]], labels: list[list[int]]) -> object:
        read.append(tokenizer.batch_decode(rows))
        # the loss is the number of turns that were read, and 3 more where one is `d`
        sizes = [len(row) for row in labels]
        nats = [text.count("<end>") + 3 * text.count("d<") for text in read[-1]]
        return SimpleNamespace(nats=np.repeat(nats, sizes).astype(float))

    monkeypatch.setattr(doctor, "_score", score)
    model, tokenizer = tiny_chatbot
    ids = tokenizer(contexts, add_special_tokens=False)["input_ids"]
    held = {"input_ids": ids, "labels": [[7, 3], [8, 9, 3]]}
    values = doctor._losses(model, tokenizer, held, load_prepared(good[1])["train"])
    assert read[:4] == [
        contexts,
        contexts[::-1],
        ["<user>a<end><bot>b<end><user>d<end><bot>", "<user>c<end><bot>"],
        ["<user>c<end><bot>", "<user>a<end><bot>b<end><user>d<end><bot>"],
    ]
    assert np.mean(values["earlier turns"]) == -2  # of the context that has any
    assert np.mean(values["last turn"]) == pytest.approx((2 * 3 + 3 * -3) / 5)
    assert np.mean(values["context"]) == pytest.approx((2 * 1 + 3 * -1) / 5)
    assert np.mean(values["reach"]) == 1


def test_data_of_one_turn_have_no_earlier_ones(good: Case, tmp_path: Path) -> None:
    short = [turns[:2] for turns in TRAIN[:40]]
    data = prepared(tmp_path, short, short, tokenizer=good[1] / "tokenizer")
    assert "earlier turns" not in examine(*good[0], data, limit=10).values


def test_spelled_special_tokens_are_found(good: Case) -> None:
    held = doctor._sample(load_prepared(good[1])["validation"], 4)
    held["said"] = ["a < b > end", "well < end>", "<user> hi", "the end"]
    strange = doctor._strange(good[0][1], good[1], "validation", held)
    assert strange == [False, True, True, False]


@pytest.mark.parametrize(
    ("reply", "dull"),
    [
        ("I don't know.", True),
        ("oh, i do not really know that", True),
        ("I'm not too sure about it", True),
        ("no idea!", True),
        ("i know", False),
        ("You don't like it? Sure.", False),
        ("that is a good idea", False),
    ],
)
def test_what_is_dull(reply: str, dull: bool) -> None:
    assert bool(doctor._DULL.search(reply.lower())) == dull


# The command


@pytest.mark.parametrize("options", [("--split", "test"), ("--limit", "1"), ("--limit", "-5")])
def test_too_few_replies_are_refused(
    good: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    save_chatbot(*good[0], tmp_path / "model")
    assert main(["doctor", str(tmp_path / "model"), str(good[1]), *options]) == 2
    assert "replies (limit=" in capsys.readouterr().err


def test_a_model_of_pairs_is_refused(good: Case) -> None:
    (model, tokenizer), data = good
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="answers no chat"):
        examine(model, tokenizer, data)


@pytest.mark.parametrize("steps", [None, 0])
def test_the_command_says_what_it_found(
    good: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int | None
) -> None:
    """A broken model is status 1."""
    chatbot, data = good if steps is None else untrained(tmp_path, good[1])
    save_chatbot(*chatbot, tmp_path / "model")
    arguments = [str(tmp_path / "model"), str(data), "--limit", "20"]
    status = main(["doctor", *arguments, "--json", str(tmp_path / "found.json")])
    verdict = capsys.readouterr().out.partition(",")[0]
    assert (status, verdict) == ((0, "good") if steps is None else (1, "broken"))
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert found["replies"] == 20
    assert set(found["values"]) == {measure.key for measure in MEASURES}
    assert next(iter(found["verdicts"].values())) == verdict
    assert len(found["curve"]) == 10


# When to fall back


def taught_and_unseen() -> tuple[Dialogues, Dialogues]:
    """Forty questions with answers that are taught, and forty of the same words that are not."""
    draw = random.Random(0)
    asked = [
        f"{how} the {place}?"
        for how in ("where is", "who runs", "how old is", "how big is", "when opens", "what is in")
        for place in (
            "pool",
            "bakery",
            "museum",
            "cinema",
            "zoo",
            "farm",
            "gym",
            "tower",
            "bank",
            "mill",
            "old port",
            "new port",
            "school",
            "church",
            "park",
            "post office",
        )
    ]
    draw.shuffle(asked)
    words = [
        "six",
        "nine",
        "noon",
        "anna",
        "peter",
        "mill",
        "lane",
        "king",
        "street",
        "red",
        "blue",
    ]
    pairs = [messages(question, " ".join(draw.sample(words, 4))) for question in asked]
    kept = [pair for pair in pairs if not is_test(pair)]
    return kept[:40], kept[40:80]


def test_the_curve_says_when_a_taught_bot_should_fall_back(tmp_path: Path) -> None:
    taught, unseen = taught_and_unseen()
    data = prepared(tmp_path, taught, taught + unseen)
    model, tokenizer = fit(data, steps=200, batch=40)
    found = examine(model, tokenizer, data)
    assert found.curve[0]["right"] == pytest.approx(0.5, abs=0.03)  # without: half is made up
    best = next(point for point in found.curve if point["right"] >= 0.95)
    assert best["answered"] > 0.4
    ask = partial(answer, model, tokenizer, best["threshold"])
    right = [ngrams(ask(pair), 1) == ngrams(pair[1]["content"], 1) for pair in taught]
    assert np.mean(right) >= 0.9
    assert np.mean([ask(pair) == FALLBACK for pair in unseen]) >= 0.9


def answer(model: Any, tokenizer: Any, threshold: float, pair: list[Message]) -> str:
    session = ChatSession(model, tokenizer, "greedy", min_confidence=threshold)
    return session.reply(pair[0]["content"]).text
