"""Attention: score -> softmax -> weighted sum -> context.

B is the batch, T target positions, S source positions, H the decoder's width, M the width of an
encoder output. Masks are True where a token is real.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .products_rnn_seq2seq import Linear


@dataclass
class AttentionMemory:
    """What the decoder may look at.

    Args:
        values: Encoder outputs, (B, S, M).
        keys: The same prepared by the score function once a generation, (B, S, H or M).
        mask: True where a token is real, (B, S), or may be seen, (B, T, S): global window only.
    """

    values: Tensor
    keys: Tensor
    mask: Tensor

    @property
    def positions(self) -> Tensor:
        """Place of each real token among the real ones, from 0, (B, S)."""
        return self.mask.long().cumsum(1) - 1

    @property
    def lengths(self) -> Tensor:
        """Real tokens of each item, (B, 1)."""
        return self.mask.long().sum(1, keepdim=True)


class DotScore(nn.Module):
    """score(h_t, h_s) = h_t . h_s (Luong et al. 2015, section 3.1, dot)."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__()

    def project(self, values: Tensor) -> Tensor:
        return values

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys.transpose(1, 2)


class GeneralScore(DotScore):
    """score(h_t, h_s) = h_t . W_a h_s (Luong et al. 2015, section 3.1, general)."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.memory = Linear(config.memory_size, config.hidden_size, bias=False)

    def project(self, values: Tensor) -> Tensor:
        return self.memory(values)


class ConcatScore(nn.Module):
    """score(h_t, h_s) = v . tanh(W_a [h_t; h_s]), W_a split in two (Luong et al. 2015, 3.1).

    It is also Bahdanau's v . tanh(W s + U h) (2015, section A.1.2), asked by the previous state.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__()
        self.query = Linear(config.hidden_size, config.hidden_size, bias=False)
        self.memory = Linear(config.memory_size, config.hidden_size, bias=False)
        self.energy = nn.Linear(config.hidden_size, 1, bias=False)

    def project(self, values: Tensor) -> Tensor:
        return self.memory(values)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.energy(torch.tanh(self.query(query)[:, :, None] + keys[:, None])).squeeze(-1)


SCORES: dict[str, type[nn.Module]] = {
    "dot": DotScore,
    "general": GeneralScore,
    "concat": ConcatScore,
    "additive": ConcatScore,
}


# Which positions may be seen, (B, 1 or T, S), and what is added to their scores.
Visible = tuple[Tensor, Tensor | None]


class GlobalWindow(nn.Module):
    """Every real source position."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__()
        self.size = config.attention_window_size

    def forward(self, query: Tensor, memory: AttentionMemory, steps: Tensor) -> Visible:
        return memory.mask if memory.mask.dim() == 3 else memory.mask[:, None], None


class RecentWindow(GlobalWindow):
    """The last D real source positions (ours): a memory of this size would do."""

    def forward(self, query: Tensor, memory: AttentionMemory, steps: Tensor) -> Visible:
        recent = memory.positions >= memory.lengths - self.size
        return (memory.mask & recent)[:, None], None


class LocalMonotonicWindow(GlobalWindow):
    """D positions around p_t = t (Luong et al. 2015, local-m), p_t kept within the source."""

    def forward(self, query: Tensor, memory: AttentionMemory, steps: Tensor) -> Visible:
        centre = torch.minimum(steps[None], memory.lengths - 1)
        distance = memory.positions[:, None] - centre[:, :, None]
        return memory.mask[:, None] & (distance.abs() <= self.size), None


class LocalPredictiveWindow(GlobalWindow):
    """D positions around p_t = S sigmoid(v . tanh(W_p h_t)), S the item's real length (Luong et al.
    2015, eq. 9), favouring the centre by a Gaussian of standard deviation D / 2 (eq. 10).

    Eq. 10 multiplies after the softmax, so its weights sum to less than one. The Gaussian's
    exponent is added to the score here, which is eq. 10 divided by its sum.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.position = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.centre = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, query: Tensor, memory: AttentionMemory, steps: Tensor) -> Visible:
        # sigmoid by tanh: torch.sigmoid gives a number other last bits at other places of a tensor
        share = (1 + torch.tanh(self.centre(torch.tanh(self.position(query))).float() / 2)) / 2
        centre = memory.lengths[:, :, None] * share
        distance = memory.positions[:, None] - centre
        visible = memory.mask[:, None] & (distance.abs() <= self.size)
        return visible, -(distance**2) / (2 * (self.size / 2) ** 2)


WINDOWS: dict[str, type[GlobalWindow]] = {
    "global": GlobalWindow,
    "recent": RecentWindow,
    "local-m": LocalMonotonicWindow,
    "local-p": LocalPredictiveWindow,
}


class Attention(nn.Module):
    """a_t = softmax(score(h_t, h_s)), c_t = sum_s a_t(s) h_s (Luong et al. 2015, eq. 7)."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__()
        self.score = SCORES[config.attention](config)
        self.window = WINDOWS[config.attention_window](config)

    def remember(self, values: Tensor, mask: Tensor, keys: Tensor | None = None) -> AttentionMemory:
        """Prepare encoder outputs (B, S, M); `keys` are those of an earlier call."""
        return AttentionMemory(values, self.score.project(values) if keys is None else keys, mask)

    def forward(
        self, query: Tensor, memory: AttentionMemory, steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Look at the source.

        Args:
            query: Decoder states that ask, (B, T, H).
            memory: What may be looked at.
            steps: Target position of each state, from 0, (T,).

        Returns:
            Context vectors (B, T, M) and weights (B, T, S), these in float32. A row of weights sums
            to 1 and is 0 outside the window and on padding.
        """
        visible, bias = self.window(query, memory, steps)
        scores = self.score(query, memory.keys).float()
        if bias is not None:
            scores = scores + bias
        # the smallest finite number: minus infinity would give NaN gradients under some kernels
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1)
        return weights.to(memory.values.dtype) @ memory.values, weights
