"""Weights and activations in int8, for the CPU: own modules of plain tensors.

A row of numbers is written q s: whole numbers q from -127 to 127 and a scale s = max|row| / 127. The
product of two rows is then a sum of whole numbers, exact in any order, times two scales: a row of
activations gives the same bits alone and in any batch.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .recurrent_rnn_seq2seq import RnnSeq2SeqRecurrentLayer, State

# What holds a gate shut or open, as in the float layer.
_SHUT = 1e4
# Rows whose gates are computed at once: few enough to stay in the processor's cache.
_BLOCK = 512


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers of each row in int8, (..., width), and its scale, (..., 1)."""
    scales = values.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(127)
    return values.div(scales).round_().to(torch.int8), scales


class Int8Embedding(nn.Module):
    """`nn.Embedding` in int8: `weight` (N, K) with a `scale` for each row."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        quantized, scales = quantize_rows(weight.detach().float())
        self.weight = nn.Parameter(quantized, requires_grad=False)
        self.scale = nn.Parameter(scales[:, 0], requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight) * F.embedding(tokens, self.scale[:, None])


class Int8Linear(nn.Module):
    """`nn.Linear` in int8: inputs are quantised row by row as they come."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        quantized, scales = quantize_rows(weight.detach().float())
        self.weight = nn.Parameter(quantized, requires_grad=False)
        self.scale = nn.Parameter(scales[:, 0], requires_grad=False)
        kept = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)
        self.register_parameter("bias", kept)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., K) to (..., N)."""
        if inputs.device.type != "cpu":
            raise ValueError(f"device={str(inputs.device)!r} is not possible in int8; allowed: cpu.")
        quantized, scales = quantize_rows(inputs.flatten(0, -2).float())
        # view() for a single column, whose strides after t() alone `_int_mm` misreads
        columns = self.weight.t().view(self.in_features, self.out_features)
        outputs = torch._int_mm(quantized, columns).float().mul_(scales).mul_(self.scale)
        if self.bias is not None:
            outputs.add_(self.bias)
        return outputs.view(*inputs.shape[:-1], self.out_features)


class Int8RecurrentLayer(nn.Module):
    """`RnnSeq2SeqRecurrentLayer` in int8, gates and state in float32.

    sigmoid(x) = 1 / (1 + exp(-x)) and tanh(x) = 2 sigmoid(2x) - 1. Weights of gates are kept times
    -1 and those of new content times -2, so that one `exp` opens them all. (`torch.sigmoid` does
    not give a number the same bits at all places of a tensor, and `torch.tanh` is slow.)
    """

    def __init__(self, layer: RnnSeq2SeqRecurrentLayer):
        super().__init__()
        self.is_lstm = layer.is_lstm
        self.directions = layer.directions
        self.inputs, self.hidden = nn.ModuleList(), nn.ModuleList()
        weights = layer.eval().weights()
        for way in range(self.directions):
            weight_ih, weight_hh, bias_ih, bias_hh = weights[4 * way : 4 * way + 4]
            sign = self._each_gate(weight_hh, lstm=(-1, -1, -2, -1), gru=(-1, -1, -2))
            if self.is_lstm:
                bias_ih, bias_hh = bias_ih + bias_hh, None

    def weights(self) -> list[Tensor]:
        return []
