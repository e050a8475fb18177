"""Attention against numbers worked out by hand.

Handy values: tanh(ln 2) = 0.6, tanh(ln 3) = 0.8; scores of ln(a), ln(b) give softmax weights in
the proportion a : b.
"""

from math import log
from typing import Any

import pytest
import torch
from modeling_helpers import tiny_config
from torch import Tensor

from chatbot.modeling.attention_rnn_seq2seq import Attention

CLOSE = {"rtol": 0, "atol": 5e-5}  # numbers below are written with four or five digits
LN2, LN3 = log(2), log(3)


def attention_of(weights: dict[str, Any], **changes: Any) -> Attention:
    """An attention with the given weights, named by the ends of their parameters' names."""
    settings = {"bridge": "zero"} | changes
    attention = Attention(tiny_config(**settings))
    expected = {name: torch.tensor(value) for name, value in weights.items()}
    attention.load_state_dict(expected)
    return attention


@torch.no_grad()
def look(
    attention: Attention, query: list[float], values: Any, mask: list[int] | None = None, t: int = 0
) -> tuple[list[float], list[float]]:
    """Context and weights of one decoder state at target position t."""
    memory = torch.tensor(values, dtype=torch.float)[None]
    real = torch.ones(memory.shape[:2]) if mask is None else torch.tensor([mask])
    remembered = attention.remember(memory, real.bool())
    context, weights = attention(torch.tensor([[query]]), remembered, torch.tensor([t]))
    return context[0, 0].tolist(), weights[0, 0].tolist()


def weights_of(*args: Any, **options: Any) -> list[float]:
    return look(*args, **options)[1]


def assert_numbers(given: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(torch.tensor(given), torch.tensor(expected).float(), **CLOSE)


def test_dot_on_three_source_tokens() -> None:
    attention = attention_of({}, attention="dot", hidden_size=2)
    # h_t = (2, 1). Scores 2*1 + 1*0 = 2, 2*0 + 1*1 = 1, 2*1 + 1*1 = 3
    # e^2 = 7.3891, e^1 = 2.7183, e^3 = 20.0855, sum 30.1929 -> 0.2447, 0.0900, 0.6652
    # context (0.2447 + 0.6652, 0.0900 + 0.6652)
    context, weights = look(attention, [2.0, 1.0], [[1, 0], [0, 1], [1, 1]])
    assert_numbers(weights, [0.24473, 0.09003, 0.66524])
    assert_numbers(context, [0.90997, 0.75527])


def test_general_between_spaces_of_two_widths() -> None:
    matrix = [[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]]
    attention = attention_of(
        {"score.memory.weight": matrix},
        attention="general", hidden_size=2, encoder_hidden_size=3,
    )  # fmt: skip
    # W_a turns the unit vectors into its columns (1, 0), (0, 1), (0.5, 1)
    # h_t = (2, 1). Scores 2, 1, 2*0.5 + 1*1 = 2
    # e^2 = 7.3891, e^1 = 2.7183, e^2 = 7.3891, sum 17.4964 -> 0.4223, 0.1554, 0.4223
    # the context of unit vectors is the weights themselves
    context, weights = look(attention, [2.0, 1.0], [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert_numbers(weights, [0.42232, 0.15536, 0.42232])
    assert_numbers(context, weights)


@pytest.mark.parametrize("name", ["concat", "additive"])
def test_concat_and_additive_on_three_source_tokens(name: str) -> None:
    one = [[1.0, 0.0], [0.0, 1.0]]
    attention = attention_of(
        {"score.query.weight": one, "score.memory.weight": one,
         "score.energy.weight": [[1.0, 2.0]]},
        attention=name, hidden_size=2,
    )  # fmt: skip
    # W h_t + U h_s with h_t = (ln 2, 0):
    #   (ln 2, 0) + (0, 0)             = (ln 2, 0)    -> tanh (0.6, 0.0) -> v = (1, 2): 0.6
    #   (ln 2, 0) + (ln 3 - ln 2, ln 2) = (ln 3, ln 2) -> tanh (0.8, 0.6)                2.0
    #   (ln 2, 0) + (-ln 2, ln 3)       = (0, ln 3)    -> tanh (0.0, 0.8)                1.6
    # e^0.6 = 1.8221, e^2 = 7.3891, e^1.6 = 4.9530, sum 14.1642 -> 0.1286, 0.5217, 0.3497
    # context: first 0.5217 * 0.4055 - 0.3497 * 0.6931, second 0.5217 * 0.6931 + 0.3497 * 1.0986
    context, weights = look(attention, [LN2, 0.0], [[0, 0], [LN3 - LN2, LN2], [-LN2, LN3]])
    assert_numbers(weights, [0.12864, 0.52167, 0.34969])
    assert_numbers(context, [-0.03086, 0.74576])


def test_the_picture_of_the_article() -> None:
    """Seven encoder states, whose scores are high at the 2nd, the 4th and the 5th."""
    attention = attention_of({}, attention="dot", hidden_size=2)
    scores = [log(share) for share in (1, 6, 1, 5, 5, 1, 1)]
    states = [[score, place] for place, score in enumerate(scores, start=1)]
    # h_t = (1, 0) picks the first number of a state as its score. 1+6+1+5+5+1+1 = 20
    # weights 1/20, 6/20, 1/20, 5/20, 5/20, 1/20, 1/20
    # context: second number 0.05*(1 + 3 + 6 + 7) + 0.3*2 + 0.25*(4 + 5) = 0.85 + 0.6 + 2.25 = 3.7
    #          first number  0.3 * ln 6 + 0.5 * ln 5 = 0.53753 + 0.80472 = 1.34225
    context, weights = look(attention, [1.0, 0.0], states)
    assert_numbers(weights, [0.05, 0.30, 0.05, 0.25, 0.25, 0.05, 0.05])
    assert_numbers(context, [1.34225, 3.7])


def local_p(v: float, size: int) -> Attention:
    """Local-p whose p_t is S * sigmoid(v * tanh(h_t))."""
    return attention_of(
        {"window.position.weight": [[1.0]], "window.centre.weight": [[v]]},
        attention="dot", attention_window="local-p", attention_window_size=size, hidden_size=1,
    )  # fmt: skip


def test_local_p_in_the_middle() -> None:
    # h_t = 0: p_t = 7 * sigmoid(0) = 3.5, all scores 0. D = 2: positions 1.5 to 5.5, four of them
    # Gaussian with sigma = D / 2 = 1: exp(-1.5^2 / 2) = 0.32465, exp(-0.5^2 / 2) = 0.88250
    # eq. 10: 0.25 * 0.32465 = 0.08116, 0.25 * 0.88250 = 0.22062; their sum 0.60357
    # divided by the sum: 0.13447, 0.36553
    weights = weights_of(local_p(1.0, 2), [0.0], [[1]] * 7)
    assert_numbers(weights, [0, 0, 0.13447, 0.36553, 0.36553, 0.13447, 0])


def test_local_p_off_the_middle_with_uneven_scores() -> None:
    # h_t = ln 2, tanh 0.6; v = ln(7/3) / 0.6: sigmoid(ln(7/3)) = 0.7, p_t = 4 * 0.7 = 2.8
    # D = 2: positions 1, 2, 3. Scores ln 2 * (1, 2, 0) = ln 2, ln 4, ln 1: softmax 2/7, 4/7, 1/7
    # sigma = 1: exp(-1.8^2 / 2) = 0.19790, exp(-0.8^2 / 2) = 0.72615, exp(-0.2^2 / 2) = 0.98020
    # eq. 10: 0.05654, 0.41494, 0.14003, sum 0.61151 -> 0.09246, 0.67855, 0.22899
    weights = weights_of(local_p(log(7 / 3) / 0.6, 2), [LN2], [[0], [1], [2], [0]])
    assert_numbers(weights, [0, 0.09246, 0.67855, 0.22899])


def test_local_p_counts_real_tokens_only() -> None:
    # the four tokens of the test above, among padding
    values = [[9], [0], [1], [9], [9], [2], [0], [9]]
    weights = weights_of(local_p(log(7 / 3) / 0.6, 2), [LN2], values, [0, 1, 1, 0, 0, 1, 1, 0])
    assert_numbers(weights, [0, 0, 0.09246, 0, 0, 0.67855, 0.22899, 0])


@pytest.mark.parametrize("push", [-1e4, 1e4], ids=["first", "past the last"])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_local_p_always_sees_something(push: float, length: int) -> None:
    weights = weights_of(local_p(push, 1), [1.0], [[1]] * length)
    assert sum(weights) == pytest.approx(1)
    seen = [place for place, weight in enumerate(weights) if weight > 0]
    # p_t = 0 sees positions 0 and 1, p_t = S only S - 1
    assert seen == ([0, 1][:length] if push < 0 else [length - 1])


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (0, [1 / 2, 1 / 2, 0, 0]),  # around position 0: 0 and 1
        (2, [0, 1 / 3, 1 / 3, 1 / 3]),  # around 2: 1, 2 and 3
        (3, [0, 0, 1 / 2, 1 / 2]),
        (9, [0, 0, 1 / 2, 1 / 2]),  # past the end: around the last
    ],
)
def test_local_m(t: int, expected: list[float]) -> None:
    attention = attention_of(
        {}, attention="dot", attention_window="local-m", attention_window_size=1, hidden_size=1
    )
    assert_numbers(weights_of(attention, [0.0], [[1]] * 4, t=t), expected)
    # the same four tokens among padding
    weights = weights_of(attention, [0.0], [[1]] * 7, [0, 1, 1, 0, 1, 1, 0], t=t)
    assert_numbers([weights[place] for place in (1, 2, 4, 5)], expected)


@pytest.mark.parametrize(
    ("size", "mask", "expected"),
    [
        (2, [1, 1, 1, 1], [0, 0, 1 / 2, 1 / 2]),
        (2, [1, 1, 1, 0], [0, 1 / 2, 1 / 2, 0]),
        (2, [0, 0, 1, 1], [0, 0, 1 / 2, 1 / 2]),
        (2, [1, 0, 1, 1, 0, 1, 0], [0, 0, 0, 1 / 2, 0, 1 / 2, 0]),
        (1, [1, 0, 1, 0], [0, 0, 1, 0]),
        (9, [1, 0, 1, 1], [1 / 3, 0, 1 / 3, 1 / 3]),
    ],
    ids=["whole", "right", "left", "holed", "one", "longer than the source"],
)
def test_recent_with_padding_anywhere(size: int, mask: list[int], expected: list[float]) -> None:
    attention = attention_of(
        {}, attention="dot", attention_window="recent", attention_window_size=size, hidden_size=1
    )
    assert_numbers(weights_of(attention, [0.0], [[1]] * len(mask), mask), expected)


@pytest.mark.parametrize("window", ["global", "recent", "local-m", "local-p"])
@pytest.mark.parametrize("name", ["dot", "general", "concat"])
def test_what_is_remembered_stays_as_it_was_and_gradients_are_finite(
    name: str, window: str
) -> None:
    attention = Attention(tiny_config(attention=name, attention_window=window))
    values = torch.randn(2, 5, 8, requires_grad=True)
    mask = torch.tensor([[0, 1, 0, 0, 0], [1, 1, 0, 1, 1]]).bool()
    memory = attention.remember(values, mask)
    before: list[Tensor] = [part.detach().clone() for part in (values, memory.keys, mask)]
    context, weights = attention(torch.randn(2, 3, 8), memory, torch.arange(3))
    for part, old in zip((values, memory.keys, mask), before, strict=True):
        assert torch.equal(part, old)
    assert (weights[~mask[:, None].expand_as(weights)] == 0).all()
    context.sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert (values.grad[~mask] == 0).all()


def test_very_large_scores_do_not_overflow() -> None:
    attention = attention_of({}, attention="dot", hidden_size=1)
    assert weights_of(attention, [1e4], [[1e4], [-1e4], [1e4]]) == [0.5, 0.0, 0.5]
