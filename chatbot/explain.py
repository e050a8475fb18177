"""Looking inside a reply: its attention and its probability, read off by teacher forcing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast as Tokenizer

from chatbot.data import clean_text
from chatbot.decoding import generate, spoken_tokens
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration as Model
from chatbot.presets import generation_preset
from chatbot.tokenization import encode_context, encode_turn, is_chat

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Explanation:
    """How the model sees one reply to one context.

    Args:
        attention: Weights, (reply tokens, source tokens); rows sum to 1. None without attention.
        log_probabilities: log p of each reply token given those before it, (reply tokens,).
    """

    attention: Tensor | None
    log_probabilities: Tensor


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


def explain_reply(model: Model, context: Sequence[int], reply: Sequence[int]) -> Explanation:
    """Read attention and probabilities in one pass: cached steps would give the same.

    `context` is as `encode_context` gives it; `reply` lacks `<go>`, and has `<end>` where it ends.
    """
    labels = torch.tensor([list(reply)], device=model.device)
    with torch.inference_mode():
        output = model(
            input_ids=torch.tensor([list(context)], device=model.device),
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
            output_attentions=True,
        )
        scores = output.logits.float().log_softmax(-1).gather(2, labels[..., None])
    attention = output.cross_attentions[0][0, 0].cpu() if output.cross_attentions else None
    return Explanation(attention, scores[0, :, 0].cpu())
