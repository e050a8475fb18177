"""Whole dialogues in one pass: the encoder reads each once, for all the replies in it.

An encoder that reads from the start only has, at the end of each turn, exactly the state that a
reply to it starts from. B is the batch of dialogues, R the most replies of one, N all replies.
"""

import torch
from torch import Tensor

from .recurrent_rnn_seq2seq import RnnSeq2SeqRecurrentStack

# Tokens read at a time: fewer would be more calls, more would be more padding.
_STRIDE = 16
# Rows are read in multiples of it: a kernel is kept for each shape that ever came.
_ROWS = 4


def read_turns(
    stack: RnnSeq2SeqRecurrentStack, embeddings: Tensor, reply_positions: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encode dialogues stride by stride, since a whole sequence would give no cell but the last.

    Each stride of a dialogue ends where a reply starts from, if not before.

    Args:
        stack: Layers in one direction.
        embeddings: Of the dialogues, (B, S, width).
        reply_positions: The last position that each reply may see, rising, (B, R); -1 where a
            dialogue has fewer replies.

    Returns:
        Encoder outputs (B, S, M), and for each reply in order, hidden and cell states (N, layers,
        M) and the source tokens that it may see (N, S).

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
    order = reply_positions.amax(1).argsort(descending=True)  # the first to end go last
    places = _strides(reply_positions[order])
    # where each token stands in all dialogues end to end; -1 on padding
    spots = [place.where(place < 0, place + order[: len(place), None] * length) for place in places]
    spot = torch.cat([part.flatten() for part in spots])
    read = embeddings.flatten(0, 1).index_select(0, spot.clamp(min=0))
    # drawn once: recurrent dropout is one draw a sequence
    states, weights = stack.zero_state(embeddings), stack.weights(padded=True)
    outputs, finals = [], []
    for part, place in zip(read.split([p.numel() for p in places]), places, strict=True):
        states = [(hidden[: len(place)], cell[: len(place)]) for hidden, cell in states]
        padding = (place < 0) & (torch.arange(place.shape[1], device=place.device) > 0)
        layers, states = stack(part.unflatten(0, place.shape), states, padding, weights)
        outputs.append(layers[-1].flatten(0, 1))
        finals.append([torch.cat(kind, dim=1) for kind in zip(*states, strict=True)])
    turns, room = torch.cat(outputs), given.shape[0] * length + 1  # one more, for the padding
    memory = turns.new_zeros(room, turns.shape[1]).index_copy(0, spot % room, turns)
    last = torch.cat([part.amax(1) for part in spots])
    row = last.new_zeros(room).scatter(0, last % room, torch.arange(len(last), device=last.device))
    item, reply = given.nonzero(as_tuple=True)
    arrival = row[item * length + reply_positions[item, reply]]
    hidden, cell = (torch.cat(kind)[arrival] for kind in zip(*finals, strict=True))
    seen = torch.arange(length, device=given.device) <= reply_positions[given][:, None]
    return memory[:-1].unflatten(0, (-1, length)), hidden, cell, seen


def _strides(reply_positions: Tensor) -> list[Tensor]:
    """The tokens of each stride, (rows, steps), -1 on padding, without rows that have ended."""
    last, places = reply_positions.amax(1, keepdim=True), []
    end = torch.zeros_like(last)
    while len(live := (end <= last).nonzero()):
        start, following = end, reply_positions.where(reply_positions >= end, last)
        end = (following.amin(1, keepdim=True) + 1).minimum(start + _STRIDE)
        steps = start + torch.arange(
            round_up(int((end - start).max()), _STRIDE // 4), device=end.device
        )
        places.append(steps.where(steps < end, -1)[: round_up(int(live[-1, 0]) + 1, _ROWS)])
    return places


def round_up(number: int, step: int) -> int:
    """The next multiple of a step."""
    return -(-number // step) * step
