"""Teacher forcing, ranking and predictions, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from chat_helpers import Chatbot, few_dialogues, make_chatbot, make_fixed_chatbot
from datasets import Dataset
from modeling_helpers import tiny_model

from chatbot import evaluation
from chatbot.data import dialogue_examples
from chatbot.decoding import generate_replies
from chatbot.evaluation import (
    Perplexity,
    TokenScores,
    context_measures,
    estimate,
    group_table,
    last_turn,
    measure_perplexity,
    perplexity_by_source,
    perplexity_columns,
    predict,
    rank_replies,
    rarity_table,
    score_tokens,
)
from chatbot.presets import GenerationPreset
from chatbot.tokenization import encode_reply, train_tokenizer

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
            "dialogue": [0, 1],
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
        {**example, "source": f"source-{index % 2}", "dialogue": index}
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


def test_measuring_draws_no_numbers(tiny_chatbot: Chatbot, two: Dataset) -> None:
    state = torch.get_rng_state()
    measure_perplexity(*tiny_chatbot, two)
    assert torch.equal(torch.get_rng_state(), state)


def test_perplexity_is_that_of_a_plain_loop(tiny_chatbot: Chatbot, examples: Dataset) -> None:
    """Written without anything of the package: one reply, one step at a time."""
    model, tokenizer = tiny_chatbot
    nats = tokens = 0.0
    for example in examples:
        for place, token in enumerate(example["labels"]):
            source = torch.tensor([example["input_ids"]])
            before = torch.tensor([[tokenizer.bos_token_id, *example["labels"][:place]]])
            with torch.no_grad():
                logits = model(input_ids=source, decoder_input_ids=before).logits[0, -1]
            nats -= math.log(torch.softmax(logits.double(), 0)[token])
            tokens += 1
    measured = measure_perplexity(model, tokenizer, examples)
    assert measured.per_token == pytest.approx(math.exp(nats / tokens), rel=1e-5)


@pytest.mark.parametrize("copy", [False, True])
def test_copying_and_plain_probabilities_both_sum_to_one(examples: Dataset, copy: bool) -> None:
    """Logits of a copying model are log-probabilities: no second softmax may change them."""
    model, tokenizer = make_chatbot(copy=copy)
    part = examples.select([0])
    scores = score_tokens(model, tokenizer, part)
    row = {name: torch.tensor([part[0][name]]) for name in ("input_ids", "labels")}
    with torch.no_grad():
        logits = model(**row).logits[0].double()
    p = logits.exp() if copy else logits.softmax(-1)
    assert torch.allclose(p.sum(-1), torch.ones(len(p), dtype=torch.double), atol=1e-5)
    expected = -p[range(len(p)), part[0]["labels"]].log()
    assert scores.nats == pytest.approx(expected.numpy(), rel=1e-4)


def test_bytes_and_accuracy_by_hand(fixed: Chatbot, two: Dataset) -> None:
    scores = score_tokens(*fixed, two)
    # "you like that" and "you"; "you" is always the likeliest
    assert scores.bytes.tolist() == [13, 3]
    assert scores.right.tolist() == [True, False, False, False, True, False]
    (row,) = group_table(perplexity_columns(scores), two["dialogue"], ["all", "all"])
    assert (row["name"], row["count"]) == ("all", 2)
    assert row["perplexity per byte"]["value"] == pytest.approx(0.00009375 ** (-1 / 16), rel=1e-5)
    assert row["perplexity per word"]["value"] == pytest.approx(0.00009375 ** (-1 / 4), rel=1e-5)
    assert row["accuracy"]["value"] == pytest.approx(2 / 6)


def test_unknown_words_are_words() -> None:
    tokenizer = train_tokenizer(["yes i do"] * 2, level="word")
    labels = encode_reply(tokenizer, "yes, quite so", 20)
    assert labels.count(tokenizer.unk_token_id) == 3
    model = tiny_model(vocab_size=len(tokenizer), attention="general")
    examples = Dataset.from_dict({"input_ids": [labels], "labels": [labels]})
    assert measure_perplexity(model, tokenizer, examples).words == 4  # the comma stands alone


def test_an_estimate_by_hand() -> None:
    found = estimate([7, 7, 8], [1, 2, 3], [2, 2, 4], math.log)
    assert found["value"] == pytest.approx(math.log(6 / 8))
    assert found["low"] <= found["value"] <= found["high"]
    assert estimate([1, 2], [1, 5])["value"] == 3  # of items, where no sizes are given
    assert estimate([4, 4, 4], [1, 2, 6]) == {"value": 3}  # one dialogue: no interval


def test_replies_of_one_dialogue_are_not_independent() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=40), 10)
    alone, together = (estimate(of, values) for of in (range(400), np.repeat(range(40), 10)))
    assert alone["value"] == pytest.approx(together["value"])
    widths = [found["high"] - found["low"] for found in (alone, together)]
    assert widths[1] == pytest.approx(widths[0] * 10**0.5, rel=0.2)


def test_groups_part_the_items(tiny_chatbot: Chatbot, examples: Dataset) -> None:
    scores = score_tokens(*tiny_chatbot, examples)
    table = group_table(perplexity_columns(scores), examples["dialogue"], examples["turn"])
    assert [row["name"] for row in table] == sorted(set(examples["turn"]))
    assert sum(row["count"] for row in table) == len(examples)
    for row in table:
        part = examples.filter(lambda each, turn=row["name"]: each["turn"] == turn)
        expected = measure_perplexity(*tiny_chatbot, part)
        measured = row["perplexity per token"]["value"]
        assert measured == pytest.approx(expected.per_token, rel=1e-5)


def test_rarity_by_hand() -> None:
    scores = TokenScores(np.log([2, 4, 8, 16]), *np.array([[0] * 4, [4], [1], [1]], dtype=object))
    examples = Dataset.from_dict({"labels": [[5, 6, 7, 3]], "dialogue": [0]})
    train = Dataset.from_dict({"labels": [[6] * 9, [7] * 10, [3] * 1000]})
    table = rarity_table(scores, examples, train)
    found = {row["name"]: row["perplexity per token"]["value"] for row in table}
    assert found == pytest.approx({0: 2, 1: 4, 10: 8, 1000: 16})


def test_the_last_turn(tiny_chatbot: Chatbot) -> None:
    tokenizer = tiny_chatbot[1]
    text = "<user>hi<end><bot>hello<end><user>how are you?<end><bot>"
    context = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(last_turn(tokenizer, context)) == "<user>how are you?<end><bot>"
    again = last_turn(tokenizer, context)
    assert last_turn(tokenizer, again) == again
    assert last_turn(tokenizer, [300, 301]) == [300, 301]  # no speaker: all of it


def test_contexts_are_swapped_and_cut(
    tiny_chatbot: Chatbot, examples: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[list[int]]] = []

    def score(model: object, tokenizer: object, changed: Dataset) -> TokenScores:
        given.append(list(changed["input_ids"]))
        assert list(changed["labels"]) == list(examples["labels"])
        return score_tokens(*tiny_chatbot, changed)

    monkeypatch.setattr(evaluation, "score_tokens", score)
    measured = context_measures(*tiny_chatbot, examples)
    true, cut, swapped = given
    assert true == list(examples["input_ids"])
    assert cut == [last_turn(tiny_chatbot[1], context) for context in true] != true
    assert sorted(swapped) == sorted(true)
    assert all(ours != theirs for ours, theirs in zip(true, swapped, strict=True))
    whole = score_tokens(*tiny_chatbot, examples).perplexity()
    assert measured["its context"]["value"] == pytest.approx(whole.per_token, rel=1e-5)
    assert len({each["value"] for each in measured.values()}) == 3


def test_a_context_is_worth_nothing_to_a_deaf_model(fixed: Chatbot, two: Dataset) -> None:
    values = [measured["value"] for measured in context_measures(*fixed, two).values()]
    assert values == pytest.approx([values[0]] * 3)


def wins(measured: evaluation.Measures) -> list[float]:
    return [found["value"] for found in measured.values()]


def test_ranking_by_hand(fixed: Chatbot) -> None:
    texts = [("you", "<end>"), ("you", "Ġlike", "<end>"), ("Ġlike", "you", "<end>"), ("<end>",)]
    labels = [pieces(fixed, *tokens) for tokens in texts]
    pool = Dataset.from_dict({"labels": labels})
    ranked = []
    for true in labels:
        one = Dataset.from_dict({"input_ids": [[4, 5]], "labels": [true], "dialogue": [0]})
        measured = rank_replies(*fixed, one, pool)
        assert list(measured) == ["hits@1/4 by log p", "hits@1/4 by log p per token"]
        ranked.append(wins(measured))
    # in all 0.05, 0.0125 twice and 0.1; a token sqrt(0.05) = 0.224, cbrt(0.0125) = 0.232, 0.1
    assert ranked == [[0, 0], [0, 1 / 2], [0, 1 / 2], [1, 0]]


def test_ranking_is_that_of_scoring_each_reply(examples: Dataset) -> None:
    """With as many replies as there are to rank nothing is drawn: each pair is scored alone."""
    model, tokenizer = make_chatbot()
    with torch.no_grad():  # what was said shall matter
        model.lm_head.weight.mul_(50)
        model.model.encoder.embed_tokens.weight.mul_(20)
    replies = sorted({tuple(labels) for labels in examples["labels"]})[:12]
    chosen, best = [], []
    for example in examples.select(range(20)):
        rows = {"input_ids": [example["input_ids"]] * len(replies), "labels": replies}
        scores = score_tokens(model, tokenizer, Dataset.from_dict(rows))
        nats = scores.sums(scores.nats)
        winner = (nats / scores.tokens).argmin()
        chosen.append({**example, "labels": replies[winner]})
        best.append(winner == nats.argmin())
    assert len({each["labels"] for each in chosen}) > 2
    pool = Dataset.from_dict({"labels": replies})
    measured = rank_replies(model, tokenizer, Dataset.from_list(chosen), pool)
    assert wins(measured) == pytest.approx([np.mean(best), 1])


def test_twenty_are_drawn_with_a_fixed_seed(tiny_chatbot: Chatbot, examples: Dataset) -> None:
    measured = rank_replies(*tiny_chatbot, examples, examples)
    assert next(iter(measured)) == "hits@1/20 by log p"
    assert rank_replies(*tiny_chatbot, examples, examples) == measured


def test_predictions(tiny_chatbot: Chatbot) -> None:
    model, tokenizer = tiny_chatbot
    turns = few_dialogues()[0]
    rows = list(dialogue_examples(tokenizer, turns, max_source_tokens=96, max_target_tokens=20))
    given = [{**row, "dialogue": 3, "source": "x"} for row in rows]
    examples = Dataset.from_list(given)
    greedy = GenerationPreset(no_repeat_ngram_size=0, max_new_tokens=8)
    records = sorted(predict(model, tokenizer, examples, greedy), key=lambda each: each["turn"])
    assert [record["turn"] for record in records] == [row["turn"] for row in rows]
    for record in records:
        before = turns[: record["turn"]]
        assert record["reference"] == turns[record["turn"]]["content"]
        assert record["message"] == before[-1]["content"].lower()
        assert [record["prediction"]] == generate_replies(model, tokenizer, [before], greedy)
        assert record["words"] == len(record["prediction"].split())
        assert 1 <= record["tokens"] <= 8
        assert (record["dialogue"], record["source"], record["unknown"]) == (3, "x", 0)
        assert {"f1", "loop", "copy"} < record.keys()
        assert not {"input_ids", "labels", "reply"} & record.keys()


def test_draws_of_predictions_have_a_seed(tiny_chatbot: Chatbot, examples: Dataset) -> None:
    drawn = GenerationPreset(temperature=1.0, max_new_tokens=8)

    def said(seed: int) -> list[str]:
        return [each["prediction"] for each in predict(*tiny_chatbot, examples, drawn, seed=seed)]

    assert said(1) == said(1) != said(2)
