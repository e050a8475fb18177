"""Looking inside a reply: attention, probabilities, rivals of each word, by teacher forcing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast as Tokenizer

from chatbot.data import clean_text
from chatbot.decoding import generate, spoken_tokens
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration as Model
from chatbot.modeling.attention_rnn_seq2seq import (
    Attention,
    AttentionMemory,
    LocalPredictiveWindow,
)
from chatbot.modeling.modeling_rnn_seq2seq import RnnSeq2SeqEncoderOutput
from chatbot.presets import generation_preset
from chatbot.tokenization import encode_context, encode_turn, is_chat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALTERNATIVES = 5  # tokens that are named at each place of a reply


@dataclass(frozen=True)
class Explanation:
    """How the model sees one reply to one context.

    Args:
        attention: Weights, (reply tokens, source tokens); rows sum to 1. None without attention.
        log_probabilities: log p of each reply token given those before it, (reply tokens,).
        alternatives: The likeliest tokens in the place of each, best first, (reply tokens, 5).
        alternative_probabilities: Theirs, given the same tokens before, (reply tokens, 5).
        centres: Source position that a local window stands on, (reply tokens,); None without one.
    """

    attention: Tensor | None
    log_probabilities: Tensor
    alternatives: Tensor
    alternative_probabilities: Tensor
    centres: Tensor | None

    @property
    def entropy(self) -> Tensor | None:
        """Of each row of attention, in nats, (reply tokens,): 0 where it sees one token alone."""
        return None if self.attention is None else torch.special.entr(self.attention).sum(1)


@dataclass(frozen=True)
class ExplainedReply:
    """The same with its words, to be printed, drawn and computed with.

    Args:
        source_tokens, tokens: What was read and what is said, `<end>` included, as text.
        probabilities: p of each token given those before it, (tokens,).
        attention: Weights, (tokens, source_tokens); None without attention.
    """

    source_tokens: list[str]
    tokens: list[str]
    probabilities: NDArray[np.float32]
    attention: NDArray[np.float32] | None

    def figure(self) -> Figure:
        """A heat map as in Bahdanau 2015. Raises ValueError for a model without attention."""
        if self.attention is None:
            raise ValueError(
                "attention='none' has no weights to draw: its decoder gets one fixed vector; "
                "allowed: a model with dot, general, concat or additive attention."
            )
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            extra = "pip install 'rnn-seq2seq-chatbot[evaluate]'"
            raise ImportError(f"pictures need matplotlib: {extra}") from error
        rows, columns = self.attention.shape
        figure = Figure((2.4 + 0.33 * columns, 1.2 + 0.3 * rows), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(self.attention, vmin=0, vmax=1, cmap="Greys", aspect="auto")
        figure.colorbar(image, label="weight")
        labels = [[t.strip() or "␣" for t in of] for of in (self.source_tokens, self.tokens)]
        axes.set_xticks(range(columns), labels[0], rotation=60, ha="right", parse_math=False)
        axes.set_yticks(range(rows), labels[1], parse_math=False)
        axes.set(xlabel="source", ylabel="reply")
        return figure


def explain(
    model: Model,
    tokenizer: Tokenizer,
    messages: str | Sequence[Mapping[str, Any]],
    reply: str | None = None,
    *,
    target_tokenizer: Tokenizer | None = None,
) -> ExplainedReply:
    """Where the model looks while it gives a reply, and how likely it finds each token.

    Args:
        model: In evaluation mode, as `load_chatbot` gives it.
        messages: A text, or a conversation that ends with the user's message.
        reply: Any text. None: what the model says, the likeliest token at each step.
        target_tokenizer: Of the reply, where the model has two vocabularies.

    Raises ValueError where the messages are not possible, or `target_tokenizer` is missing.
    """
    given = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    said = [{**message, "content": clean_text(message["content"])} for message in given]
    if not said or said[-1]["role"] != "user" or not said[-1]["content"]:
        raise ValueError(f"messages={messages!r}; allowed: what ends with words of the user.")
    if target_tokenizer is None and not (is_chat(tokenizer) or model.config.share_embeddings):
        raise ValueError("target_tokenizer=None; allowed: that of load_target_tokenizer(folder).")
    written = target_tokenizer or tokenizer
    context = encode_context(tokenizer, said, model.config.max_source_positions)
    if reply is None:
        preset = generation_preset("greedy")
        sequences = generate(model, written, [context], preset, torch.Generator()).sequences
        tokens = spoken_tokens(written, sequences[0].tolist())
    else:
        tokens = encode_turn(written, "assistant", clean_text(reply))[1:]
    seen = explain_reply(model, context, tokens)
    weights = None if seen.attention is None else seen.attention.numpy()
    words = [[of.decode([t]) for t in ids] for of, ids in ((tokenizer, context), (written, tokens))]
    return ExplainedReply(words[0], words[1], seen.log_probabilities.exp().numpy(), weights)


def explain_reply(
    model: Model,
    context: Sequence[int],
    reply: Sequence[int],
    read: RnnSeq2SeqEncoderOutput | None = None,
) -> Explanation:
    """Read attention and probabilities in one pass: cached steps would give the same.

    `context` is as `encode_context` gives it; `reply` lacks `<go>`, and has `<end>` where it ends.
    `read` is what the encoder has made of the context, where that is known.
    """
    source = torch.tensor([list(context)], device=model.device)
    labels = torch.tensor([list(reply)], device=model.device)
    with torch.inference_mode():
        output = model(
            input_ids=source,
            encoder_outputs=read,
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
            output_attentions=True,
            output_hidden_states=True,
        )
        scores = output.logits[0].float().log_softmax(-1).cpu()
        centres = _centres(model, output.decoder_hidden_states[-1], source)
    best = scores.topk(min(ALTERNATIVES, scores.shape[1]))
    return Explanation(
        attention=output.cross_attentions[0][0, 0].cpu() if output.cross_attentions else None,
        log_probabilities=scores.gather(1, labels.cpu().T)[:, 0],
        alternatives=best.indices,
        alternative_probabilities=best.values.exp(),
        centres=centres,
    )


def _centres(model: Model, states: Tensor, source: Tensor) -> Tensor | None:
    """Where a local window stood when states (1, T, H) asked it."""
    name, length = model.config.attention_window, source.shape[1]
    if name == "local-m":
        return torch.arange(states.shape[1]).clamp(max=length - 1).float()
    if name != "local-p":
        return None
    window = cast(LocalPredictiveWindow, cast(Attention, model.model.decoder.attention).window)
    memory = AttentionMemory(states, states, torch.ones_like(source, dtype=torch.bool))
    _, bias = window(states, memory, torch.arange(states.shape[1], device=source.device))
    # eq. 10 at position 0 holds the centre's distance from it: -c² / 2σ², σ = D / 2
    return (-bias[0, :, 0] * window.size**2 / 2).sqrt().cpu()
