"""From a conversation to replies: presets, sampling with a generator of one's own, batches.

Sampling draws from a `torch.Generator` that belongs to the caller, so that a seed gives the same
reply whatever other threads do; `generate()` itself would draw from the one global generator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation import GenerateBeamEncoderDecoderOutput
from transformers.generation.streamers import BaseStreamer

from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.presets import DEFAULT_GENERATION_PRESET, GenerationPreset
from chatbot.tokenization import encode_context, is_chat, is_lowercasing, restore_case


class GumbelNoise(LogitsProcessor):
    """Makes greedy search a draw: argmax(logits + Gumbel noise) has the softmax's distribution."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.rand(scores.shape, generator=self.generator).to(scores.device)
        # kept off 0, whose logarithm would be infinite
        return scores - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


def default_preset(tokenizer: PreTrainedTokenizerFast) -> str:
    """A chat is drawn, a translation searched for."""
    return DEFAULT_GENERATION_PRESET if is_chat(tokenizer) else "precise"


def generate_replies(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    preset: GenerationPreset,
    *,
    seed: int = 0,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
) -> list[str]:
    """The reply to each conversation, all in one batch.

    Args:
        conversations: Lists of messages that end with the user's. A model of parallel text
            translates the last, and needs no other.
        preset: How replies are chosen.
        seed: Of the draws.
        target_tokenizer: Of the replies, where the model has two vocabularies.
    """
    written = target_tokenizer or tokenizer
    longest = model.config.max_source_positions
    contexts = [encode_context(tokenizer, messages, longest) for messages in conversations]
    generator = torch.Generator().manual_seed(seed)
    sequences = generate(model, written, contexts, preset, generator).sequences
    return [reply_text(written, sequence) for sequence in sequences]


def generate(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    contexts: Sequence[Sequence[int]],
    preset: GenerationPreset,
    generator: torch.Generator,
    *,
    candidates: int = 1,
    streamer: BaseStreamer | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    **changes: Any,
) -> GenerateBeamEncoderDecoderOutput:
    """`model.generate` as a preset wants it.

    Args:
        contexts: Source tokens of each conversation, as `encode_context` gives them.
        generator: Where draws come from.
        candidates: Replies of each context, best first; more than 1 for beam search only.
        changes: Fields of transformers' `GenerationConfig` that no preset has.

    Returns:
        transformers' output: `sequences` (contexts x candidates, tokens), begun with `<go>`.
    """
    batch = tokenizer.pad(
        {"input_ids": [list(context) for context in contexts]}, return_tensors="pt"
    )
    config = _generation_config(tokenizer, preset, candidates)
    config.update(**changes)
    with torch.inference_mode():
        return model.generate(
            **batch.to(model.device),
            generation_config=config,
            logits_processor=_sampling(preset, generator),
            streamer=streamer,
            stopping_criteria=stopping_criteria,
            tokenizer=tokenizer,
        )


def reply_text(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[int] | Tensor) -> str:
    """What a person reads: without special tokens, with capitals."""
    return readable(tokenizer, tokenizer.decode(tokens, skip_special_tokens=True))


def readable(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """Decoded text, or the start of it, with the capitals that a lower-casing tokenizer lost."""
    return restore_case(text.strip()) if is_lowercasing(tokenizer) else text.strip()


def spoken_tokens(tokenizer: PreTrainedTokenizerFast, sequence: Sequence[int]) -> list[int]:
    """A generated sequence without `<go>`, and without padding after `<end>`; never empty."""
    end = tokenizer.eos_token_id
    tokens = list(sequence[1:])
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens or [end]


def confidence(log_probabilities: Tensor) -> float:
    """Geometric mean of the probabilities of a reply's tokens, whose log p are (tokens,)."""
    return float(log_probabilities.mean().exp())


def unspoken_tokens(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Special tokens that no reply may hold: all but `<end>`."""
    return [token for token in tokenizer.all_special_ids if token != tokenizer.eos_token_id]


def _generation_config(
    tokenizer: PreTrainedTokenizerFast, preset: GenerationPreset, candidates: int
) -> GenerationConfig:
    # sampling is ours (see `_sampling`): transformers' own stays at its neutral defaults
    settings = asdict(preset) | {"temperature": 1.0, "top_p": 1.0, "top_k": 50}
    return GenerationConfig(
        **settings,
        do_sample=False,
        num_return_sequences=candidates,
        suppress_tokens=unspoken_tokens(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        return_dict_in_generate=True,
    )


def _sampling(preset: GenerationPreset, generator: torch.Generator) -> LogitsProcessorList:
    if preset.temperature == 0:
        return LogitsProcessorList()
    processors: list[LogitsProcessor] = [TemperatureLogitsWarper(float(preset.temperature))]
    if preset.top_k:
        processors.append(TopKLogitsWarper(preset.top_k))
    if preset.top_p < 1:
        processors.append(TopPLogitsWarper(preset.top_p))
    return LogitsProcessorList([*processors, GumbelNoise(generator)])
