"""Copying: the mixture by hand, its loss, and words that were never learned."""

from math import log

import pytest
import torch
from modeling_helpers import (
    END,
    HOLED,
    LEFT,
    LENGTHS,
    RIGHT,
    SOURCE,
    Settings,
    name_of,
    random_tokens,
    tiny_model,
    variants,
)
from torch import Tensor, nn
from torch.nn import functional as F

from chatbot.modeling.copying_rnn_seq2seq import Pointing, label_loss, mixed_log_probabilities

COPYING = [settings for settings in variants() if settings.get("copy")]
LABELS = torch.cat([SOURCE[:, :2], random_tokens(3, 3, seed=4)], dim=1)
LABELS[1, 3:] = -100
CLOSE = {"rtol": 0, "atol": 1e-5}

# g = 3/4; three source tokens 1, 2, 1 with attention 0.5, 0.3, 0.2; softmax 0.4, 0.3, 0.2, 0.1
BY_HAND = Pointing(
    gate=torch.tensor([[[log(3)]]]),
    attention=torch.tensor([[[0.5, 0.3, 0.2]]]),
    source_ids=torch.tensor([[1, 2, 1]]),
)
LOGITS = torch.tensor([[[0.4, 0.3, 0.2, 0.1]]]).log()
SAME = nn.Identity()  # an output layer that leaves logits as they are
# word 0: 0.75 * 0.4; 1: 0.75 * 0.3 + 0.25 * (0.5 + 0.2); 2: 0.75 * 0.2 + 0.25 * 0.3; 3: 0.75 * 0.1
MIXTURE = [0.3, 0.4, 0.225, 0.075]


def test_the_mixture_by_hand() -> None:
    given = mixed_log_probabilities(LOGITS + 5, BY_HAND).exp()  # logits know no absolute level
    torch.testing.assert_close(given, torch.tensor([[MIXTURE]]))


@pytest.mark.parametrize("label", range(4))
def test_the_loss_by_hand(label: int) -> None:
    loss = label_loss(SAME, LOGITS, BY_HAND, torch.tensor([[label]]))
    assert loss.item() == pytest.approx(-log(MIXTURE[label]))
    shared = label_loss(SAME, LOGITS, BY_HAND, torch.tensor([[label]]), num_items_in_batch=5)
    assert shared.item() == pytest.approx(-log(MIXTURE[label]) / 5)


def test_words_that_are_out_of_the_question_stay_finite() -> None:
    # word 1 is impossible for the vocabulary and twice in the source, word 3 is nowhere
    logits = torch.tensor([[[0.0, -1e4, 0.0, -1e4]]], requires_grad=True)
    gate = torch.tensor([[[-200.0]]], requires_grad=True)
    given = mixed_log_probabilities(logits, BY_HAND._replace(gate=gate))
    assert given.isfinite().all()
    torch.testing.assert_close(given.exp(), torch.tensor([[[0.0, 0.7, 0.3, 0.0]]]))
    loss = label_loss(SAME, logits, BY_HAND._replace(gate=gate), torch.tensor([[3]]))
    (given.sum() + loss).backward()
    assert logits.grad is not None
    assert gate.grad is not None
    assert logits.grad.isfinite().all()
    assert gate.grad.isfinite().all()


def test_gradients_are_those_of_the_formula() -> None:
    parts = [torch.randn(2, 3, 6), torch.randn(2, 3, 1), torch.rand(2, 3, 4)]
    leaves = [part.double().requires_grad_() for part in parts]
    ids = torch.tensor([[1, 2, 1, 1], [5, 5, 0, 3]])
    labels = torch.tensor([[1, 4, 2], [5, 0, 3]])

    def plainly(logits: Tensor, gate: Tensor, attention: Tensor) -> Tensor:
        g = gate.sigmoid()
        held = F.one_hot(ids, 6).double()
        return (g * logits.softmax(-1) + (1 - g) * (attention @ held)).log()

    weights = torch.randn(2, 3, 6)
    ways = [
        (plainly(*leaves) * weights).sum(),
        (mixed_log_probabilities(leaves[0], Pointing(leaves[1], leaves[2], ids)) * weights).sum(),
    ]
    losses = [
        F.nll_loss(plainly(*leaves).flatten(0, 1), labels.flatten()),
        label_loss(SAME, leaves[0], Pointing(leaves[1], leaves[2], ids), labels),
    ]
    for expected, given in (ways, losses):
        wanted = torch.autograd.grad(expected, leaves)
        torch.testing.assert_close(torch.autograd.grad(given, leaves), wanted, **CLOSE)


@pytest.mark.parametrize("settings", COPYING, ids=name_of)
def test_probabilities_sum_to_one_and_padding_gets_none(settings: Settings) -> None:
    model = tiny_model(**settings)
    everywhere = [model(*layout, labels=LABELS).logits for layout in (RIGHT, LEFT, HOLED)]
    for logits in everywhere:
        torch.testing.assert_close(logits.exp().sum(-1), torch.ones(3, 5), **CLOSE)
        torch.testing.assert_close(logits, everywhere[0], **CLOSE)
    # with a gate that only copies, nothing but the item's own real words is said
    with torch.no_grad():
        model.model.decoder.copy_gate.bias.fill_(-1e4)
    copied = model(*HOLED, labels=LABELS).logits.exp()
    for item, (row, length) in enumerate(zip(copied, LENGTHS, strict=True)):
        words = SOURCE[item, :length]
        torch.testing.assert_close(row[:, words.unique()].sum(-1), torch.ones(5), **CLOSE)


@pytest.mark.parametrize("settings", [*COPYING, {"attention": "general"}], ids=name_of)
def test_the_loss_is_that_of_the_logits_and_training_needs_no_logits(settings: Settings) -> None:
    model = tiny_model(**settings)
    outputs = model(*HOLED, labels=LABELS)
    expected = F.cross_entropy(outputs.logits.flatten(0, 1), LABELS.flatten())
    torch.testing.assert_close(outputs.loss, expected, **CLOSE)
    shared = model(*HOLED, labels=LABELS, num_items_in_batch=26).loss
    torch.testing.assert_close(shared * 2, outputs.loss, **CLOSE)  # 13 labels count
    model.train()
    training = model(*HOLED, labels=LABELS)
    assert training.logits is None
    torch.testing.assert_close(training.loss, expected, **CLOSE)
    assert model(*HOLED, decoder_input_ids=LABELS.clamp(min=0)).logits.shape == (3, 5, 19)


def test_half_precision_mixes_in_single() -> None:
    model = tiny_model(copy=True)
    expected = model(*RIGHT, labels=LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = model(*RIGHT, labels=LABELS)
    assert given.logits.dtype == given.loss.dtype == torch.float32
    torch.testing.assert_close(given.logits.exp().sum(-1), torch.ones(3, 5), **CLOSE)
    torch.testing.assert_close(given.loss, expected.loss, rtol=0, atol=0.1)


def test_without_tokens_the_vocabulary_speaks_alone() -> None:
    model, plain = tiny_model(copy=True), tiny_model()
    plain.load_state_dict(model.state_dict(), strict=False)
    vectors = model.get_input_embeddings()(SOURCE)
    given = model(inputs_embeds=vectors, labels=LABELS.clamp(min=0)).logits
    torch.testing.assert_close(given, plain(SOURCE, labels=LABELS.clamp(min=0)).logits)


def test_a_name_that_was_never_learned_comes_back() -> None:
    """The reply names the source's last word; half of the words never occur in training."""
    torch.manual_seed(0)
    learned, others = torch.arange(4, 34), torch.arange(34, 64)
    right = {}
    for copy in (True, False):
        model = tiny_model(
            vocab_size=64, copy=copy, attention="general", hidden_size=16, embedding_size=16,
            encoder_layers=1, decoder_layers=1,
        ).train()  # fmt: skip
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.05)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(250):
            source = learned[torch.randint(30, (64, 4))]
            labels = torch.stack([source[:, -1], torch.full((64,), END)], dim=1)
            optimizer.zero_grad()
            model(source, labels=labels).loss.backward()
            optimizer.step()
        asked = others[torch.randint(30, (64, 4))]
        replies = model.eval().generate(asked, max_new_tokens=2, do_sample=False)
        right[copy] = (replies[:, 1] == asked[:, -1]).float().mean().item()
    assert right[True] > 0.8
    assert right[False] < 0.2
