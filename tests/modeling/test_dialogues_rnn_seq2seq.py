"""Whole dialogues in one pass: losses and gradients are those of separate pairs."""

import pytest
import torch
from modeling_helpers import Settings, name_of, random_tokens, tiny_model, variants
from torch import Tensor

from chatbot.modeling import RnnSeq2SeqForConditionalGeneration, quantize
from chatbot.modeling.dialogues_rnn_seq2seq import read_turns
from chatbot.modeling.recurrent_rnn_seq2seq import RnnSeq2SeqRecurrentLayer

KINDS = [
    settings
    for settings in variants()
    if settings["attention"] in ("none", "general", "additive") or settings.get("copy")
]
DIALOGUES = random_tokens(3, 11, seed=7)
# three replies, one, and two; the longest dialogue ends with its last reply's context
POSITIONS = torch.tensor([[2, 6, 10], [4, -1, -1], [0, 7, -1]])
LABELS = random_tokens(3, 3, 4, seed=8)
LABELS[0, 1, 2:] = LABELS[2, 0, 1:] = -100
LABELS[POSITIONS < 0] = -100
CLOSE = {"rtol": 0, "atol": 1e-5}


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    """The same as sources that end where a reply may look up to, their masks, and labels."""
    place, reply = (POSITIONS >= 0).nonzero(as_tuple=True)
    mask = torch.arange(11) <= POSITIONS[place, reply][:, None]
    return DIALOGUES[place], mask.long(), LABELS[place, reply]


def gradients(model: RnnSeq2SeqForConditionalGeneration, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("settings", KINDS, ids=name_of)
def test_one_pass_equals_separate_pairs(settings: Settings) -> None:
    model = tiny_model(**settings)
    sources, mask, labels = pairs()
    expected = model(sources, mask, labels=labels)
    given = model(DIALOGUES, labels=LABELS, reply_positions=POSITIONS)
    torch.testing.assert_close(given.loss, expected.loss, **CLOSE)
    model.train()
    wanted = gradients(model, model(sources, mask, labels=labels, num_items_in_batch=7).loss)
    found = gradients(
        model,
        model(DIALOGUES, labels=LABELS, reply_positions=POSITIONS, num_items_in_batch=7).loss,
    )
    torch.testing.assert_close(found, wanted, **CLOSE)


@pytest.mark.parametrize("settings", [{}, {"copy": True}, {"cell_type": "gru"}], ids=name_of)
def test_long_turns_and_many_replies_equal_separate_pairs(settings: Settings) -> None:
    """More tokens than are read at a time, and more replies than are decoded together."""
    model = tiny_model(**settings)
    dialogues, labels = random_tokens(8, 60, seed=1), random_tokens(8, 5, 9, seed=2)
    draw = torch.Generator().manual_seed(3)
    positions = torch.rand(8, 60, generator=draw).argsort(1)[:, :5].sort(1).values
    labels[torch.rand(8, 5, 9, generator=draw).cumsum(2) > 3] = -100
    mask = torch.arange(60) <= positions.flatten()[:, None]
    sources = dialogues.repeat_interleave(5, dim=0)
    expected = model(sources, mask.long(), labels=labels.flatten(0, 1))
    given = model(dialogues, labels=labels, reply_positions=positions)
    torch.testing.assert_close(given.loss, expected.loss, **CLOSE)
    torch.testing.assert_close(
        gradients(model, given.loss), gradients(model, expected.loss), **CLOSE
    )


def test_the_encoder_reads_each_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(encoder_layers=1, decoder_layers=1)
    layer, read = model.model.encoder.stack.layers[0], []
    layer.register_forward_hook(lambda _, inputs, outputs: read.append(inputs[0].shape[1]))
    model(DIALOGUES[:1], labels=LABELS[:1], reply_positions=POSITIONS[:1])
    assert read == [4, 4, 4]  # 3, 4 and 4 tokens, in multiples of 4


def test_an_int8_model_measures_dialogues_too() -> None:
    model = quantize(tiny_model())
    sources, mask, labels = pairs()
    given = model(DIALOGUES, labels=LABELS, reply_positions=POSITIONS).loss
    torch.testing.assert_close(given, model(sources, mask, labels=labels).loss, rtol=0, atol=1e-3)


def test_recurrent_dropout_is_drawn_once_a_sequence() -> None:
    stack = tiny_model(recurrent_dropout=0.5).train().model.encoder.stack
    words = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(6)
    whole, _ = stack(words, stack.zero_state(words))
    torch.manual_seed(6)
    strides, *_ = read_turns(stack, words, torch.tensor([[7, 39], [20, 39]]))
    torch.testing.assert_close(strides, whole[-1], **CLOSE)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([[2, 2, 5]], r"reply_positions=\[\[2, 2, 5\]\] is not possible; allowed: positions"),
        ([[5, 2, -1]], "below 11"),
        ([[2, 6, 11]], "below 11"),
    ],
)
def test_wrong_positions_are_refused(positions: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model()(DIALOGUES[:1], labels=LABELS[:1], reply_positions=torch.tensor(positions))


def test_a_bidirectional_encoder_says_that_it_cannot() -> None:
    model = tiny_model(bidirectional=True)
    with pytest.raises(ValueError, match=r"bidirectional=True is not possible.*said later"):
        model(DIALOGUES, labels=LABELS, reply_positions=POSITIONS)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    found = []
    for checkpointed in (False, True):
        model = tiny_model(recurrent_dropout=0.3).train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(0)
        loss = model(DIALOGUES, labels=LABELS, reply_positions=POSITIONS).loss
        found.append(gradients(model, loss))
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_few_shapes_are_read() -> None:
    """oneDNN keeps a kernel for each shape that ever came: many would fill the memory."""
    model, shapes = tiny_model(dropout=0.1).train(), set()
    for module in model.modules():
        if isinstance(module, RnnSeq2SeqRecurrentLayer | torch.nn.Linear):
            module.register_forward_pre_hook(lambda of, x: shapes.add((id(of), x[0].shape[:-1])))
    draw = torch.Generator().manual_seed(1)
    for length in range(20, 60):
        dialogues, labels = random_tokens(9, 64, seed=length), random_tokens(9, 3, 16, seed=length)
        positions = torch.rand(9, length, generator=draw).argsort(1)[:, :3].sort(1).values
        labels[torch.rand(9, 3, 16, generator=draw).cumsum(2) > 4] = -100
        model(dialogues, labels=labels, reply_positions=positions).loss.backward()
    assert len(shapes) < 60  # 27; 125 without multiples
