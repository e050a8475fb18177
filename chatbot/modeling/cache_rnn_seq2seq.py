"""The decoder's recurrent state as a transformers `Cache`.

One layer of the cache holds one layer's state: hidden states in `keys`, cells in `values`, each
(batch, 1, steps, width). Entry 0 is the state before the first kept step. Normally only the last
state is kept; while recording, all of them, so that `crop` can take tokens back.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from .recurrent_rnn_seq2seq import State


class RnnSeq2SeqCacheLayer(CacheLayerMixin):
    """State of one recurrent layer."""

    is_compileable = False
    is_croppable = True
    supports_early_init = False

    def __init__(self) -> None:
        super().__init__()
        self.record_past = False
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Store the state before the first token, (batch, 1, 1, width) each."""
        self.keys, self.values = key_states, value_states
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, tokens: int, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the states after new tokens, or only the last one, (batch, 1, states, width)."""
        self.length = self.length + tokens
        if self.record_past:
            key_states = torch.cat([self.keys, key_states], dim=2)
            value_states = torch.cat([self.values, value_states], dim=2)
        else:
            key_states, value_states = key_states[:, :, -1:], value_states[:, :, -1:]
        self.keys, self.values = key_states, value_states
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Target tokens read so far."""
        return self.length

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def reset(self) -> None:
        self.is_initialized = False  # the old state is never read again
        self.length = 0

    def activate_past_recording(self) -> None:
        self.record_past = True

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last tokens (a number of at most 0), which must have been recorded."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}) is not possible; allowed: 0 or less.")
        if not self.is_initialized:
            return
        if -tokens_to_remove >= self.keys.shape[2]:
            kept = self.keys.shape[2] - 1
            raise ValueError(
                f"crop({tokens_to_remove}) is not possible: the states of {kept} tokens are kept. "
                "Call activate_past_recording() before reading tokens that may be taken back."
            )
        end = self.keys.shape[2] + tokens_to_remove
        self.keys, self.values = self.keys[:, :, end - 1 : end], self.values[:, :, end - 1 : end]
        self.length = self.length + tokens_to_remove

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.keys = self.keys.repeat_interleave(repeats, dim=0)
            self.values = self.values.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            self.keys = self.keys.index_select(0, indices.to(self.keys.device))
            self.values = self.values.index_select(0, indices.to(self.values.device))


class RnnSeq2SeqCache(Cache):
    """States of all decoder layers, and the projected keys of the attention.

    Args:
        states: Number of states: one for each decoder layer, one more with input feeding (the
            last attentional vector).

    Example:
        >>> import torch
        >>> from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
        >>> model = RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqConfig(vocab_size=50))
        >>> output = model(torch.tensor([[7, 8, 9]]), decoder_input_ids=torch.tensor([[2, 10]]))
        >>> output.past_key_values.get_seq_length()
        2
    """

    def __init__(self, states: int):
        super().__init__(layers=[RnnSeq2SeqCacheLayer() for _ in range(states)])
        self.attention_keys: Tensor | None = None

    @property
    def has_state(self) -> bool:
        return self.layers[0].is_initialized

    @property
    def is_recording(self) -> bool:
        return self.layers[0].record_past

    def start(self, states: list[State]) -> None:
        """Take the states before the first token."""
        for layer, (hidden, cell) in zip(self.layers, states, strict=True):
            layer.lazy_initialization(hidden[:, :, None], cell[:, :, None])

    def store(self, states: list[list[State]], tokens: int) -> None:
        """Append the states after each of `tokens` tokens, or only those after the last."""
        for place, after in enumerate(zip(*states, strict=True)):
            # of one state a view will do
            kept = [
                parts[0][:, :, None] if len(parts) == 1 else torch.stack(parts, dim=2)
                for parts in zip(*after, strict=True)
            ]
            self.update(*kept, place, tokens=tokens)

    def last_states(self) -> list[State]:
        """What to read on from."""
        return [(layer.keys[:, :, -1], layer.values[:, :, -1]) for layer in self.layers]

    @property
    def batch_size(self) -> int:
        return self.layers[0].keys.shape[0] if self.has_state else -1

    def reset(self) -> None:
        super().reset()
        self.attention_keys = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        if self.attention_keys is not None:
            indices = indices.to(self.attention_keys.device)
            self.attention_keys = self.attention_keys.index_select(0, indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if self.attention_keys is not None:
            self.attention_keys = self.attention_keys.repeat_interleave(repeats, dim=0)
