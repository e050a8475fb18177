"""Whole dialogues in one pass: the encoder reads each once, for all the replies in it.

An encoder that reads from the start only has, at the end of each turn, exactly the state that a
reply to it starts from. B is the batch of dialogues, R the most replies of one, N all replies.
"""

import torch
from torch import Tensor

from .recurrent_rnn_seq2seq import RnnSeq2SeqRecurrentStack

# Encoder outputs (B, S, M), and for each reply: hidden and cell states (N, layers, M), the source
# tokens that it may see (N, S).
Readings = tuple[Tensor, Tensor, Tensor, Tensor]

# Tokens read at a time: fewer would be more calls, more would be more padding.
_STRIDE = 16


def read_turns(
    stack: RnnSeq2SeqRecurrentStack, embeddings: Tensor, reply_positions: Tensor
) -> Readings:
    """Encode dialogues stride by stride, since a whole sequence would give no cell but the last.

    Each stride of a dialogue ends where a reply starts from, if not before.

    Args:
        stack: Layers in one direction.
        embeddings: Of the dialogues, (B, S, width).
        reply_positions: The last position that each reply may see, rising, (B, R); -1 where a
            dialogue has fewer replies.

    Returns:
        What N separate sources would give, in the order of the dialogues and their replies.

    Raises:
        ValueError: Positions that do not rise, or lie outside of the dialogue.
    """
    length, given = embeddings.shape[1], reply_positions >= 0
    rising = reply_positions.diff(dim=1, prepend=reply_positions.new_full((len(given), 1), -1)) > 0
    if not (rising | ~given).all() or reply_positions.max() >= length:
        raise ValueError(
            f"reply_positions={reply_positions.tolist()} is not possible; allowed: positions that "
            f"rise in each dialogue, below {length}, then -1."
        )
    strides = _strides(reply_positions)
    states, outputs, places, finals = stack.zero_state(embeddings), [], [], []
    for start, end in strides:
        steps = start[:, None] + torch.arange(int((end - start).max()), device=end.device)
        padding = steps >= end[:, None]
        index = steps.clamp(max=length - 1)[..., None].expand(-1, -1, embeddings.shape[2])
        layers, states = stack(embeddings.gather(1, index), states, padding)
        outputs.append(layers[-1])
        places.append(torch.where(padding, length, steps).clamp(max=length))
        kinds = zip(*states, strict=True)  # hidden states of all layers, and cells
        finals.append([torch.cat(kind, dim=1) for kind in kinds])
    turns = torch.cat(outputs, dim=1)
    index = torch.cat(places, dim=1)[..., None].expand_as(turns)
    memory = turns.new_zeros(len(turns), length + 1, turns.shape[2]).scatter(1, index, turns)
    item, reply = given.nonzero(as_tuple=True)
    ends = torch.stack([end for _, end in strides])
    arrival = (ends[:, item] > reply_positions[item, reply]).int().argmax(0)
    hidden, cell = (torch.stack(kind)[arrival, item] for kind in zip(*finals, strict=True))
    seen = torch.arange(length, device=given.device) <= reply_positions[given][:, None]
    return memory[:, :length], hidden, cell, seen


def _strides(reply_positions: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Where each stride begins and ends in each dialogue, (B,) both.

    After its last reply a dialogue reads on, one token at a time, which nobody sees.
    """
    end, last = torch.zeros_like(reply_positions[:, 0]), reply_positions.amax(1)
    strides = []
    while (end <= last).any():
        start, beyond = end, end[:, None]
        following = torch.where(reply_positions >= beyond, reply_positions, last[:, None])
        end = torch.minimum(following.amin(1) + 1, start + _STRIDE).maximum(start + 1)
        strides.append((start, end))
    return strides
