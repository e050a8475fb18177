"""Looking inside a reply: its attention and its probability, read off by teacher forcing."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatbot.modeling import RnnSeq2SeqForConditionalGeneration


@dataclass(frozen=True)
class Explanation:
    """How the model sees one reply to one context.

    Args:
        attention: Weights, (reply tokens, source tokens); rows sum to 1. None without attention.
        log_probabilities: log p of each reply token given those before it, (reply tokens,).
    """

    attention: Tensor | None
    log_probabilities: Tensor


def explain_reply(
    model: RnnSeq2SeqForConditionalGeneration, context: Sequence[int], reply: Sequence[int]
) -> Explanation:
    """Read a reply's attention and probabilities in one pass: cached steps would give the same.

    Args:
        context: Source tokens, as `encode_context` gives them.
        reply: Reply tokens without `<go>`, with `<end>` where the reply has one.
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
