"""Reading a conversation as it grows: the encoder goes on from where it stopped.

An encoder of one direction has, after each token, all that it will ever make of what came before.
So a turn costs what its own words cost, however long the conversation is.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.modeling.modeling_rnn_seq2seq import RnnSeq2SeqEncoderOutput
from chatbot.tokenization import BOT, encode_context, encode_turns

Message = dict[str, Any]
# How many turns back an undone or edited message is answered without reading all again.
SNAPSHOTS = 16


def read_on(
    model: RnnSeq2SeqForConditionalGeneration,
    tokens: Sequence[int],
    before: RnnSeq2SeqEncoderOutput | None = None,
    longest: int | None = None,
) -> RnnSeq2SeqEncoderOutput:
    """Encode the tokens that follow what was read.

    Args:
        tokens: Source tokens, one at least.
        before: What an earlier call returned; it stays as it is. None: nothing was read.
        longest: How many outputs are kept, the newest, for attention to see. None: all.

    Returns:
        Outputs (1, S, M) and the state after the last token, as of all tokens read at once.

    Raises:
        ValueError: The encoder is bidirectional: each word changes what all before it are read as.
    """
    if model.config.bidirectional:
        raise ValueError("bidirectional=True cannot read on; allowed: a unidirectional encoder.")
    encoder, ids = model.model.encoder, torch.tensor([list(tokens)], device=model.device)
    embeddings = encoder.embed_tokens(ids)
    states = encoder.stack.zero_state(embeddings)
    if before is not None:
        last = zip(before["final_hidden"].unbind(1), before["final_cell"].unbind(1), strict=True)
        states = [(hidden[:, None], cell[:, None]) for hidden, cell in last]
    layers, after = encoder.stack(embeddings, states)
    outputs, kept = layers[-1], slice(-longest if longest else None, None)
    if before is not None:
        outputs = torch.cat([before["last_hidden_state"], outputs], dim=1)
        ids = torch.cat([before["source_ids"], ids], dim=1)
    parts: dict[str, Any] = {
        "last_hidden_state": outputs[:, kept],
        "final_hidden": torch.cat([hidden for hidden, _ in after], dim=1),
        "final_cell": torch.cat([cell for _, cell in after], dim=1),
        "source_ids": ids[:, kept],
    }
    return RnnSeq2SeqEncoderOutput(**parts)


@dataclass(frozen=True)
class Snapshot:
    """What the encoder has made of some messages, `count` tokens in all."""

    messages: list[Message]
    count: int
    read: RnnSeq2SeqEncoderOutput | None


class ConversationReader:
    """Encodes a conversation turn by turn, from the longest beginning of it that was read before.

    Args:
        model: Shared freely: no state lives on it. A bidirectional one reads all each time.
        tokenizer: The model's own, of a chat.
        longest: Tokens that the decoder may look at.
        carry: What follows where a conversation is longer. True: the state goes on, and attention
            sees the newest tokens. False: whole turns are cut, and the rest is read from the start.
    """

    def __init__(
        self,
        model: RnnSeq2SeqForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        longest: int,
        carry: bool,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.longest, self.carry = longest, carry
        self.snapshots: deque[Snapshot] = deque(maxlen=SNAPSHOTS)

    @torch.inference_mode()
    def read(self, messages: list[Message]) -> RnnSeq2SeqEncoderOutput:
        """What the decoder needs to answer messages; `source_ids` are the tokens it may look at."""
        if self.model.config.bidirectional:
            return self._read_cut(messages)
        snapshot = self._known(messages)
        if len(snapshot.messages) < len(messages):
            snapshot = self._read_new(snapshot, messages)
            self.snapshots.append(snapshot)
        if snapshot.count >= self.longest and not self.carry:
            return self._read_cut(messages)
        return read_on(self.model, [self.tokenizer.convert_tokens_to_ids(BOT)], snapshot.read)

    def _known(self, messages: list[Message]) -> Snapshot:
        """The newest snapshot of a beginning; those after it, which are of none, are forgotten."""
        while self.snapshots:
            newest = self.snapshots[-1]
            if messages[: len(newest.messages)] == newest.messages:
                return newest
            self.snapshots.pop()
        return Snapshot([], 0, None)

    def _read_new(self, known: Snapshot, messages: list[Message]) -> Snapshot:
        turns = encode_turns(self.tokenizer, messages[len(known.messages) :])
        tokens = list(chain.from_iterable(turns))
        # one of the longest is left for <bot>, which is no part of a turn: what follows is anyone's
        read = read_on(self.model, tokens, known.read, self.longest - 1)
        return Snapshot(list(messages), known.count + len(tokens), read)

    def _read_cut(self, messages: list[Message]) -> RnnSeq2SeqEncoderOutput:
        tokens = encode_context(self.tokenizer, messages, self.longest)
        ids = torch.tensor([tokens], device=self.model.device)
        encoded = self.model.model.encoder(ids)
        encoded.source_ids = ids
        return encoded
