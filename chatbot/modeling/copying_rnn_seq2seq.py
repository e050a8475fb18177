"""Copying: the attention points at words that the reply may take over.

p(w) = g softmax(w) + (1 - g) sum of the attention on source positions that hold w, with the gate
g = sigmoid(linear[state; context; embedding]) (See et al. 2017, eq. 8 and 9; Gu et al. 2016). Every
real source token may be copied, special ones too; padding has no attention, so it adds nothing.
Sums and logarithms are in float32, and no probability is 0, so that no logarithm is infinite.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Pointing(NamedTuple):
    """Where the decoder points, and whether it should: all that copying needs.

    Args:
        gate: Logit of g, (B, T, 1).
        attention: Weights, (B, T, S).
        source_ids: Tokens that they point at, (B, S).
    """

    gate: Tensor
    attention: Tensor
    source_ids: Tensor


def mixed_log_probabilities(logits: Tensor, pointing: Pointing) -> Tensor:
    """log p(w) from the vocabulary's logits, both (B, T, V).

    It is its own log-softmax, so that searching, sampling and scoring go on as ever.
    """
    vocabulary = F.log_softmax(logits.float(), dim=-1)
    attention = pointing.attention.float()
    words = pointing.source_ids[:, None].expand_as(attention)
    mass = torch.zeros_like(vocabulary).scatter_add(2, words, attention)
    return _mix(vocabulary, mass, pointing.gate.float())


# Labels are read in multiples of it.
_ROWS = 128


def label_loss(
    output_layer: nn.Module,
    outputs: Tensor,
    pointing: Pointing | None,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    **kwargs: object,
) -> Tensor:
    """Mean -log p of the labels, without log p of all other words, and none where no label is.

    Args:
        output_layer: What gives the vocabulary's logits.
        outputs: What it is given, (B, T, H).
        pointing: Where the decoder points; None without copying.
        labels: (B, T), -100 where they do not count.
        num_items_in_batch: What to divide the sum by; None: the labels that count.
    """
    counted = labels != -100
    vectors = outputs[counted]
    # a kernel is kept for each number of rows that ever came: few numbers need little memory
    padded = F.pad(vectors, (0, 0, 0, -len(vectors) % _ROWS))
    logits = output_layer(padded)[: len(vectors)].float()
    if pointing is None:
        summed = F.cross_entropy(logits, labels[counted], reduction="sum")
    else:
        same = pointing.source_ids[:, None] == labels[..., None]
        mass = (pointing.attention.float() * same).sum(-1, keepdim=True)[counted]
        vocabulary = F.log_softmax(logits, dim=-1).gather(1, labels[counted][:, None])
        summed = -_mix(vocabulary, mass, pointing.gate[counted].float()).sum()
    return summed / (len(logits) if num_items_in_batch is None else num_items_in_batch)


def _mix(vocabulary: Tensor, mass: Tensor, gate: Tensor) -> Tensor:
    """log(g p + (1 - g) mass) from log p; finite where the mass is 0."""
    # log g and log(1 - g); torch.logsigmoid gives other last bits at other places of a tensor
    own, other = F.log_softmax(torch.cat([gate, torch.zeros_like(gate)], -1), -1).split(1, -1)
    copied = mass.clamp(min=torch.finfo(mass.dtype).tiny).log()
    return torch.logaddexp(own + vocabulary, other + copied)
