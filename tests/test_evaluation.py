"""Measures, against values worked out by hand."""

import math
from collections.abc import Sequence

import pytest
import torch
from chat_helpers import Chatbot, few_dialogues, make_chatbot, make_fixed_chatbot
from datasets import Dataset

from chatbot.data import dialogue_examples
from chatbot.evaluation import (
    Perplexity,
    copy_rate,
    distinct,
    loop_rate,
    measure_perplexity,
    ngrams,
    perplexity_by_source,
)

P = {"you": 0.5, "Ġlike": 0.25, "Ġthat": 0.15, "<end>": 0.1}


def pieces(chatbot: Chatbot, *tokens: str) -> list[int]:
    return [chatbot[1].convert_tokens_to_ids(token) for token in tokens]


@pytest.fixture(scope="module")
def fixed() -> Chatbot:
    """A model that gives each token the probability in P, whatever came before."""
    return make_fixed_chatbot(P)


@pytest.fixture(scope="module")
def two(fixed: Chatbot) -> Dataset:
    """Two replies: "you like that" and "you"."""
    return Dataset.from_dict(
        {
            "input_ids": [[4, 300, 3, 5], [4, 300, 301, 302, 3, 5]],
            "labels": [
                pieces(fixed, "you", "Ġlike", "Ġthat", "<end>"),
                pieces(fixed, "you", "<end>"),
            ],
            "source": ["b", "a"],
        }
    )


def nats(*tokens: str) -> float:
    return -sum(math.log(P[token]) for token in tokens)


def test_perplexity_by_hand(fixed: Chatbot, two: Dataset) -> None:
    measured = measure_perplexity(*fixed, two)
    expected = nats("you", "Ġlike", "Ġthat", "<end>", "you", "<end>")
    assert measured.nats == pytest.approx(expected, rel=1e-5)
    # 0.5 * 0.25 * 0.15 * 0.1 * 0.5 * 0.1 = 0.00009375
    assert expected == pytest.approx(-math.log(0.00009375))
    # `<end>` is a token that must be said, and no word
    assert (measured.tokens, measured.words) == (6, 4)
    assert measured.per_token == pytest.approx(0.00009375 ** (-1 / 6), rel=1e-5)
    assert measured.per_word == pytest.approx(0.00009375 ** (-1 / 4), rel=1e-5)


def test_a_perplexity_reads_well() -> None:
    assert str(Perplexity(math.log(16), 2, 1)) == "4.0 per token, 16.0 per word"


@pytest.fixture(scope="module")
def examples(tiny_chatbot: Chatbot) -> Dataset:
    rows = [
        {**example, "source": f"source-{index % 2}"}
        for index, turns in enumerate(few_dialogues(train=8))
        for example in dialogue_examples(
            tiny_chatbot[1], turns, max_source_tokens=60, max_target_tokens=20
        )
    ]
    return Dataset.from_list(rows)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batches_change_nothing(tiny_chatbot: Chatbot, examples: Dataset, batch_size: int) -> None:
    expected = measure_perplexity(*tiny_chatbot, examples)
    measured = measure_perplexity(*tiny_chatbot, examples, batch_size=batch_size)
    assert measured.nats == pytest.approx(expected.nats, rel=1e-5)
    assert (measured.tokens, measured.words) == (expected.tokens, expected.words)
    assert measured.tokens == sum(len(labels) for labels in examples["labels"])


@pytest.mark.parametrize("training", [False, True])
def test_measuring_leaves_the_model_as_it_was(examples: Dataset, training: bool) -> None:
    model, tokenizer = make_chatbot(dropout=0.5)
    expected = measure_perplexity(model.eval(), tokenizer, examples)
    model.train(training)
    assert measure_perplexity(model, tokenizer, examples) == expected  # without dropout
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_perplexity_by_source(fixed: Chatbot, two: Dataset) -> None:
    parts = perplexity_by_source(*fixed, two)
    assert [(part.name, part.replies) for part in parts] == [("a", 1), ("b", 1), ("all", 2)]
    assert parts[0].perplexity.nats == pytest.approx(nats("you", "<end>"), rel=1e-5)
    whole = measure_perplexity(*fixed, two)
    assert parts[2].perplexity.nats == pytest.approx(whole.nats, rel=1e-6)
    assert (parts[2].perplexity.tokens, parts[2].perplexity.words) == (6, 4)
    assert str(parts[0]) == f"a: {parts[0].perplexity} (1 replies)"


def test_nothing_to_measure_is_an_error(fixed: Chatbot, two: Dataset) -> None:
    for measure in (measure_perplexity, perplexity_by_source):
        with pytest.raises(ValueError, match="no examples to measure perplexity on"):
            measure(*fixed, two.select([]))


def test_runs_of_words() -> None:
    assert ngrams("Don't you? I do!", 2) == [("don't", "you"), ("you", "i"), ("i", "do")]
    assert ngrams("one two", 3) == []
    assert ngrams("", 1) == []


@pytest.mark.parametrize(
    ("replies", "n", "expected"),
    [
        (["i do", "i do not"], 1, 3 / 5),  # i, do, not
        (["i do", "i do not"], 2, 2 / 3),  # (i do), (do not)
        (["yes", "no"], 1, 1.0),
        (["yes", "Yes!", "yes."], 1, 1 / 3),
        ([], 1, 0.0),
        (["one two"], 3, 0.0),
    ],
)
def test_distinct_by_hand(replies: Sequence[str], n: int, expected: float) -> None:
    assert distinct(replies, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("yoga yoga yoga yoga yoga", 2 / 3),  # three trigrams, one of them new
        ("i like tea and i like tea too", 1 / 6),
        ("i like tea, and you?", 0.0),
        ("no", 0.0),
    ],
)
def test_loops_by_hand(reply: str, expected: float) -> None:
    assert loop_rate(reply) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "message", "expected"),
    [
        ("You like green tea?", "I like green tea.", 1 / 2),  # (like green tea) of two
        ("i like green tea", "I like green tea.", 1.0),
        ("so do i, really", "I like green tea.", 0.0),
        ("tea?", "tea", 0.0),
    ],
)
def test_copies_by_hand(reply: str, message: str, expected: float) -> None:
    assert copy_rate(reply, message) == pytest.approx(expected)


def test_measuring_draws_no_numbers(tiny_chatbot: Chatbot, two: Dataset) -> None:
    state = torch.get_rng_state()
    measure_perplexity(*tiny_chatbot, two)
    assert torch.equal(torch.get_rng_state(), state)
