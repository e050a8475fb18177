"""Recurrent layers and stacks of them.

A state is a pair (hidden, cell), each (batch, directions, width); a GRU's cell has width 0, so
that both kinds travel, are stored and are reordered alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .products_rnn_seq2seq import linear

State = tuple[Tensor, Tensor]
# Outputs of a layer, and its state after them.
LayerReading = tuple[Tensor, State]
# Outputs of each layer, and the state of each after the last real token.
StackReading = tuple[list[Tensor], list[State]]

# Large enough for a sigmoid of exactly 0 or 1, small enough for float16.
_SHUT = 1e4


class LstmWeights(nn.LSTM):
    """Gives its weights when called: accelerate brings those of a called module from the disk."""

    def forward(self) -> list[list[nn.Parameter]]:  # type: ignore[override]
        return self.all_weights


class GruWeights(nn.GRU):
    """The same for a GRU."""

    def forward(self) -> list[list[nn.Parameter]]:  # type: ignore[override]
        return self.all_weights


class RnnSeq2SeqRecurrentLayer(GradientCheckpointingLayer):
    """One LSTM or GRU layer, in one or both directions, over sequences of any padding at the end.

    `nn.LSTM` gives no cell state but the last, and packed sequences are several times slower. So
    padding holds the state instead: an extra input marks it, whose fixed weights shut the input
    gate and open the forget gate (for a GRU, the update gate). The last state is then the one
    after the last real token, exactly, and the backward direction starts on an untouched state.
    """

    def __init__(
        self, config: RnnSeq2SeqConfig, input_size: int, hidden_size: int, directions: int
    ):
        super().__init__()
        self.is_lstm = config.cell_type == "lstm"
        self.directions = directions
        self.recurrent_dropout = config.recurrent_dropout
        kind = LstmWeights if self.is_lstm else GruWeights
        self.rnn = kind(input_size, hidden_size, batch_first=True, bidirectional=directions == 2)

    def weights(self, padded: bool = False) -> list[Tensor]:
        """Weights and biases of each direction, hidden-to-hidden weights dropped while training.

        One draw serves a whole sequence (Merity et al. 2018, section 2). `padded` adds the input
        that marks padding.
        """
        drop, training = self.recurrent_dropout, self.training
        tensors: list[Tensor] = []
        for inputs, hidden, *biases in self.rnn():
            if padded:
                inputs = torch.cat([inputs, self._holding_column(inputs)], dim=1)
            tensors += inputs, F.dropout(hidden, drop, training) if drop else hidden, *biases
        return tensors

    def zero_state(self, inputs: Tensor) -> State:
        """The state before the first token."""
        hidden = inputs.new_zeros(inputs.shape[0], self.directions, self.rnn.hidden_size)
        return hidden, hidden if self.is_lstm else hidden[..., :0]

    def forward(
        self,
        inputs: Tensor,
        hidden: Tensor,
        cell: Tensor,
        padding: Tensor | None = None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a sequence.

        A state comes and goes as two tensors, weights one by one: reentrant gradient checkpointing
        sees none in a pair or a list.

        Args:
            inputs: (batch, steps, width).
            hidden, cell: The state before it.
            padding: True on padding, which may only follow the real tokens, (batch, steps).
            weights: Those of `weights(padded)`, where one draw serves several calls.

        Returns:
            Outputs (batch, steps, directions x width) and the state after the last real token.
            Outputs on padding mean nothing.
        """
        if padding is not None:
            inputs = torch.cat([inputs, padding[..., None].to(inputs.dtype)], dim=-1)
        tensors = list(weights) or self.weights(padding is not None)
        hidden, cell = (part.transpose(0, 1).contiguous() for part in (hidden, cell))
        options = (True, 1, 0.0, self.training, self.directions == 2, True)
        if self.is_lstm:
            outputs, last, cell = torch.lstm(inputs, (hidden, cell), tensors, *options)
        else:
            outputs, last = torch.gru(inputs, hidden, tensors, *options)
        if padding is not None:
            # an LSTM's hidden state is not held, and a GRU's only up to rounding, which adds up
            last = torch.cat([_last_real(outputs, padding, self.rnn.hidden_size), last[1:]])
        return outputs, last.transpose(0, 1), cell.transpose(0, 1)

    def step(self, inputs: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
        """Read one token, (batch, width), in one direction.

        Without gradients, `nn.LSTM` would repack its weights at every call.
        """
        hidden, cell = state[0][:, 0], state[1][:, 0]
        of_inputs, of_hidden, bias, hidden_bias = weights
        gates, recurrent = linear(inputs, of_inputs, bias), linear(hidden, of_hidden, hidden_bias)
        if self.is_lstm:
            admit, keep, new, show = (gates + recurrent).chunk(4, dim=-1)
            cell = keep.sigmoid() * cell + admit.sigmoid() * new.tanh()
            hidden = show.sigmoid() * cell.tanh()
        else:
            width = hidden.shape[-1]
            opened = (gates[:, :-width] + recurrent[:, :-width]).sigmoid()
            reset, keep = opened.chunk(2, dim=-1)
            new = torch.tanh(gates[:, -width:] + reset * recurrent[:, -width:])
            hidden = new + keep * (hidden - new)
        return hidden, (hidden[:, None], cell[:, None])

    def _holding_column(self, weight: Tensor) -> Tensor:
        """Input weights of the padding mark, (gates x width, 1)."""
        # gate order: LSTM input, forget, cell, output; GRU reset, update, new
        shut = (-_SHUT, _SHUT, 0.0, 0.0) if self.is_lstm else (0.0, _SHUT, 0.0)
        column = weight.new_tensor(shut).repeat_interleave(self.rnn.hidden_size)
        return column[:, None]


def _last_real(outputs: Tensor, padding: Tensor, width: int) -> Tensor:
    """Forward outputs at each item's last real token, (1, batch, width)."""
    last = (~padding).sum(1) - 1
    index = last[None, :, None].expand(1, -1, width)
    return outputs[..., :width].transpose(0, 1).gather(0, index)


class RnnSeq2SeqRecurrentStack(nn.Module):
    """Layers on top of one another, with dropout, normalisation and residual sums between them."""

    def __init__(
        self,
        config: RnnSeq2SeqConfig,
        input_size: int,
        hidden_size: int,
        depth: int,
        directions: int = 1,
    ):
        super().__init__()
        width = hidden_size * directions
        sizes = [input_size] + [width] * (depth - 1)
        self.layers = nn.ModuleList(
            RnnSeq2SeqRecurrentLayer(config, size, hidden_size, directions) for size in sizes
        )
        self.norms = (
            nn.ModuleList(nn.LayerNorm(width) for _ in sizes) if config.layer_norm else None
        )
        self.residual = config.residual
        self.dropout = config.dropout

    def zero_state(self, inputs: Tensor) -> list[State]:
        return [layer.zero_state(inputs) for layer in self.layers]

    def weights(self, padded: bool = False) -> list[list[Tensor]]:
        """Weights of each layer for a run of calls."""
        return [layer.weights(padded) for layer in self.layers]

    def forward(
        self,
        inputs: Tensor,
        states: list[State],
        padding: Tensor | None = None,
        weights: list[list[Tensor]] | None = None,
    ) -> StackReading:
        """Read a sequence, (batch, steps, width)."""

        def read(depth: int, below: Tensor) -> LayerReading:
            own = () if weights is None else weights[depth]
            outputs, hidden, cell = self.layers[depth](below, *states[depth], padding, *own)
            return outputs, (hidden, cell)

        return self._climb(inputs, read)

    def step(
        self, inputs: Tensor, states: list[State], weights: list[list[Tensor]]
    ) -> StackReading:
        """Read one token, (batch, width)."""
        return self._climb(
            inputs,
            lambda depth, below: self.layers[depth].step(below, states[depth], weights[depth]),
        )

    def _climb(self, inputs: Tensor, read: Callable[[int, Tensor], LayerReading]) -> StackReading:
        outputs, after = [], []
        for depth in range(len(self.layers)):
            result, state = read(depth, inputs)
            inputs = self._finish(depth, inputs, result)
            outputs.append(inputs)
            after.append(state)
        return outputs, after

    def _finish(self, depth: int, inputs: Tensor, result: Tensor) -> Tensor:
        if self.norms is not None:
            result = self.norms[depth](result)
        if self.residual and depth > 0:
            result = result + inputs
        if depth < len(self.layers) - 1:
            result = F.dropout(result, self.dropout, self.training)
        return result
