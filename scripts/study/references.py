"""The outside references: transformers' BART, and GPT-2 that is called like an encoder-decoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from chatbot.modeling.modeling_rnn_seq2seq import shift_tokens_right
from chatbot.tokenization import END, GO, PAD, SPECIAL_TOKENS
from chatbot.training_dialogues import NO_LABEL


class Gpt2ForReplies(GPT2LMHeadModel):
    """GPT-2 over `<user>hi<end><bot>hello<end>`: a reply follows its context without a `<go>`."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput:
        """The loss of a dialogue, the logits of a reply, or while generating what GPT-2 gives.

        Args:
            input_ids: With `labels`, both (B, L), a dialogue padded on the right. With
                `decoder_input_ids`, (B, T), a context that ends with `<bot>`, padded anywhere.
            encoder_outputs: What `get_encoder` gave of the context, instead of it.
        """
        if labels is not None:
            learned, read = labels[:, 1:] != NO_LABEL, self.transformer(input_ids)[0][:, :-1]
            loss = F.cross_entropy(self.lm_head(read[learned]), labels[:, 1:][learned])
            return CausalLMOutput(loss=loss)
        if decoder_input_ids is None:
            kwargs |= {"attention_mask": attention_mask, "position_ids": position_ids}
            return super().forward(input_ids, **kwargs)
        context = input_ids if encoder_outputs is None else encoder_outputs[0]
        context, mask = self._end_aligned(context, attention_mask)
        reply = decoder_input_ids[:, 1:]
        mask = torch.cat([mask, torch.ones_like(reply)], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        tokens = torch.cat([context, reply], dim=1)
        read = self.transformer(tokens, attention_mask=mask, position_ids=positions)
        return CausalLMOutput(logits=self.lm_head(read[0][:, context.shape[1] - 1 :]))

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """`<go>` and the labels but the last."""
        return shift_tokens_right(labels, self.config.pad_token_id, self.config.bos_token_id)

    def get_encoder(self, modality: str | None = None) -> Any:
        """A function of the context that returns it: nothing is read before the reply."""
        return lambda input_ids, attention_mask: BaseModelOutput(last_hidden_state=input_ids)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Any:
        """As transformers does; `sequences` are `<go>` and the reply, as of an encoder-decoder."""
        prompt, mask = self._end_aligned(input_ids, attention_mask)
        output = super().generate(prompt, attention_mask=mask, **options)
        reply = output.sequences[:, prompt.shape[1] - 1 :]
        reply[:, 0] = self.config.bos_token_id
        output.sequences = reply
        return output

    @staticmethod
    def _end_aligned(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same with all padding on the left."""
        order = mask.argsort(dim=1, stable=True)
        return tokens.gather(1, order), mask.gather(1, order)


def collate_texts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Dialogues of `join_replies` as texts, the last reply included; the labels are the replies."""
    texts, labels = [], []
    for row in rows:
        texts.append(torch.tensor([*row["input_ids"], *row["labels"][-1]]))
        labels.append(torch.full_like(texts[-1], NO_LABEL))
        for place, reply in zip(row["reply_positions"], row["labels"], strict=True):
            labels[-1][place + 1 : place + 1 + len(reply)] = torch.tensor(reply)
    pad = SPECIAL_TOKENS.index(PAD)
    return {
        "input_ids": pad_sequence(texts, batch_first=True, padding_value=pad),
        "labels": pad_sequence(labels, batch_first=True, padding_value=NO_LABEL),
    }


def build_reference(kind: str, vocab_size: int, sizes: dict[str, Any]) -> PreTrainedModel:
    """A new `bart` or `gpt2` for our tokenizers; `sizes` are fields of its configuration."""
    pad, go, end = (SPECIAL_TOKENS.index(token) for token in (PAD, GO, END))
    common = {"pad_token_id": pad, "bos_token_id": go, "eos_token_id": end} | sizes
    if kind == "gpt2":
        return Gpt2ForReplies(GPT2Config(vocab_size=vocab_size, **common))
    common |= {"decoder_start_token_id": go, "forced_eos_token_id": None}
    return BartForConditionalGeneration(BartConfig(vocab_size=vocab_size, **common))
