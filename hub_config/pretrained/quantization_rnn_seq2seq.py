"""Weights and activations in int8, for the CPU: own modules of plain tensors.

A row of numbers is q s: whole numbers q from -79 to 79 and one scale s = max|row| / 79. The product
of two rows is a sum of whole numbers, exact in any order, times two scales. So a row of activations
gives the same bits alone and in any batch.
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

Model = TypeVar("Model", bound=PreTrainedModel)
# An int8 matrix in columns (K, N), a scale for each and a bias, or None.
Operand = tuple[Tensor, Tensor, Tensor | None]

# Without VNNI instructions a processor shifts one factor by 128 and adds two products in 16 bits,
# which overflow silently: (79 + 128) 79 2 fits.
_LARGEST = 79


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers of each row in int8, (..., width), and its scale, (..., 1)."""
    scales = values.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(_LARGEST)
    return values.div(scales).round_().to(torch.int8), scales


def multiply(rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Map float rows (batch, K) to (batch, N)."""
    if not rows.is_cpu:
        raise ValueError(f"device={rows.device.type!r} is not possible in int8; allowed: 'cpu'.")
    quantized, scales = quantize_rows(rows)
    outputs = torch._int_mm(quantized, columns).float().mul_(scales).mul_(scale)
    return outputs if bias is None else outputs.add_(bias)


class Int8Matrix(nn.Module):
    """A matrix (N, K) as `weight` in int8 and a `scale` for each row."""

    bias: Tensor | None

    def __init__(self, matrix: Tensor, bias: Tensor | None = None):
        super().__init__()
        quantized, scales = quantize_rows(matrix.detach().float())
        self.weight = nn.Parameter(quantized, requires_grad=False)
        self.scale = nn.Parameter(scales[:, 0], requires_grad=False)
        own = None if bias is None else bias.detach().float().clone()
        self.bias = None if own is None else nn.Parameter(own, requires_grad=False)


class Int8Embedding(Int8Matrix):
    """`nn.Embedding` in int8."""

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight) * F.embedding(tokens, self.scale[:, None])


class Int8Linear(Int8Matrix):
    """`nn.Linear` in int8: inputs are quantised row by row as they come."""

    def operand(self) -> Operand:
        # view() matters where K is 1: `_int_mm` misreads the strides that t() gives one column
        return self.weight.t().view(self.weight.shape[::-1]), self.scale, self.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., K) to (..., N)."""
        outputs = multiply(inputs.flatten(0, -2).float(), *self.operand())
        return outputs.view(*inputs.shape[:-1], len(self.scale))


class Int8RecurrentLayer(nn.Module):
    """`RnnSeq2SeqRecurrentLayer` with products in int8, gates and states in float32.

    sigmoid(x) = 1 / (1 + exp(-x)) and tanh(x) = 2 sigmoid(2x) - 1: with -1 in the scales, and -2
    for the new content, one `exp` opens all gates. (`torch.sigmoid` gives a number other bits at
    other places of a tensor; `torch.tanh` takes three times as long.)
    """

    def __init__(self, layer: RnnSeq2SeqRecurrentLayer):
        super().__init__()
        self.is_lstm, self.directions = layer.is_lstm, layer.directions
        self.inputs, self.hidden = nn.ModuleList(), nn.ModuleList()
        weights = layer.eval().weights()
        for place in range(0, len(weights), 4):
            of_inputs, of_hidden, bias, hidden_bias = weights[place : place + 4]
            # an LSTM adds its two biases; a GRU resets one of them
            bias, rest = (bias + hidden_bias, None) if self.is_lstm else (bias, hidden_bias)
            self.inputs.append(Int8Linear(of_inputs, bias))
            self.hidden.append(Int8Linear(of_hidden, rest))
        factors = self._each_gate((-1, -1, -2, -1), (-1, -1, -2))
        for name, parameter in self.named_parameters():
            if not name.endswith("weight"):
                parameter.mul_(factors)

    def weights(self, padded: bool = False) -> Operand:
        """Hidden-to-hidden weights of one direction, for a run of `step`s."""
        return self.hidden[0].operand()

    def zero_state(self, inputs: Tensor) -> State:
        """The state before the first token."""
        size = len(inputs), self.directions, len(self.weights()[0])
        hidden = inputs.new_zeros(size, dtype=torch.float32)
        return hidden, hidden if self.is_lstm else hidden[..., :0]

    def forward(
        self,
        inputs: Tensor,
        hidden: Tensor,
        cell: Tensor,
        padding: Tensor | None = None,
        *weights: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a sequence; arguments and results are those of `RnnSeq2SeqRecurrentLayer`."""
        if padding is None:
            padding = torch.zeros_like(inputs[..., 0], dtype=torch.bool)
        states = zip(hidden.unbind(1), cell.unbind(1), strict=True)
        ways = [self._read(way, inputs, *state, padding) for way, state in enumerate(states)]
        outputs, hiddens, cells = zip(*ways, strict=True)
        return torch.cat(outputs, dim=-1), torch.stack(hiddens, 1), torch.stack(cells, 1)

    def step(self, inputs: Tensor, state: State, weights: Operand) -> tuple[Tensor, State]:
        """Read one token, (batch, width), in one direction."""
        gates = self.inputs[0](inputs)
        hidden, cell = self._advance(gates, state[0][:, 0], state[1][:, 0], weights)
        return hidden, (hidden[:, None], cell[:, None])

    def _read(
        self, way: int, inputs: Tensor, hidden: Tensor, cell: Tensor, padding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same in one direction, states being (batch, width)."""
        weights = self.hidden[way].operand()
        # padding shuts the input gate and opens the forget gate (for a GRU, the update gate)
        held = self._each_gate((1e4, -1e4, 0, 0), (0, -1e4, 0))
        parts = [inputs.transpose(0, 1), padding.t()[..., None]]
        # some 500 tokens at once: the gates of more would not stay in the processor's cache
        size = 1 + 500 // (1 + len(padding))
        blocks = [(part.flip(0) if way else part).split(size) for part in parts]
        outputs = []
        for tokens, pads in zip(*blocks, strict=True):
            for gates in torch.where(pads, held, self.inputs[way](tokens)):
                hidden, cell = self._advance(gates, hidden, cell, weights)
                outputs.append(hidden)
        read = torch.stack(outputs[:: -1 if way else 1], dim=1)
        if way == 0:  # an LSTM's hidden state is not held
            hidden = read[torch.arange(len(padding)), (~padding).sum(1) - 1]
        return read, hidden, cell

    def _advance(self, gates: Tensor, hidden: Tensor, cell: Tensor, weights: Operand) -> State:
        """The state after a token whose part in the gates is given, (batch, gates x width)."""
        recurrent = multiply(hidden, *weights)
        if self.is_lstm:
            admit, keep, new, show = _opened(recurrent.add_(gates)).chunk(4, dim=-1)
            cell = torch.addcmul(keep * cell - admit, admit, new, value=2)
            return show * torch.tanh(cell), cell
        width = hidden.shape[1]
        reset, keep = _opened(recurrent[:, :-width] + gates[:, :-width]).chunk(2, dim=-1)
        new = _opened(reset * recurrent[:, -width:] + gates[:, -width:]) * 2 - 1
        return torch.lerp(new, hidden, keep), cell

    def _each_gate(self, lstm: tuple[float, ...], gru: tuple[float, ...]) -> Tensor:
        """A value for each gate: input, forget, new, output of an LSTM; reset, update, new."""
        scale, values = self.weights()[1], lstm if self.is_lstm else gru
        return scale.new_tensor(values).repeat_interleave(len(scale) // len(values))


def _opened(negative: Tensor) -> Tensor:
    """sigmoid(-x), in place."""
    return negative.exp_().add_(1).reciprocal_()


def quantize_modules(model: nn.Module) -> None:
    """Replace linear, embedding and recurrent layers by int8 ones of the same values."""
    model.float()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child.weight, child.bias))
            elif isinstance(child, nn.Embedding):
                setattr(parent, name, Int8Embedding(child.weight))
            elif isinstance(child, RnnSeq2SeqRecurrentLayer):
                setattr(parent, name, Int8RecurrentLayer(child))
    model.eval()


def quantize(model: Model) -> Model:
    """An int8 copy of a model, ready to answer; the model itself stays as it is."""
    quantized = copy.deepcopy(model)
    quantized.config.quantization = "int8"
    quantized.post_init()  # replaces the layers, and ties the new ones
    return quantized


class QuantizablePreTrainedModel(PreTrainedModel):
    """An int8 model keeps all its floats in float32, wherever it goes, and is not trained."""

    config: RnnSeq2SeqConfig

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            same = self.config.quantization == "none" or moved.dtype == tensor.dtype
            return moved if same else tensor.to(moved.device, torch.float32)

        return super()._apply(kept, recurse)

    def train(self, mode: bool = True) -> "QuantizablePreTrainedModel":
        if self.config.quantization == "int8":
            if mode:
                raise ValueError("quantization='int8' cannot be trained; allowed: 'none'.")
            self.requires_grad_(False)  # loading sets it on all floats
        return super().train(mode)
