"""From a conversation to replies: presets, sampling with a generator of one's own, re-ranking.

Sampling draws from a `torch.Generator` that belongs to the caller, so that a seed gives the same
reply whatever other threads do; `generate()` itself would draw from the one global generator.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers import PreTrainedTokenizerFast as Tokenizer
from transformers.generation import GenerateBeamEncoderDecoderOutput
from transformers.generation.streamers import BaseStreamer

from chatbot.metrics import copy_rate
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration as Model
from chatbot.modeling.modeling_rnn_seq2seq import RnnSeq2SeqEncoderOutput
from chatbot.presets import DEFAULT_GENERATION_PRESET, GenerationPreset
from chatbot.tokenization import USER, encode_context, is_chat, is_lowercasing, restore_case

# What anybody may say at any time: what is likely after it is likely after anything.
NEUTRAL = ("hello!", "okay.", "tell me more.", "what do you think?")
_SCORED_ROWS = 64  # replies that are read at once: their logits take rows x tokens x vocabulary


class GumbelNoise(LogitsProcessor):
    """Makes greedy search a draw: argmax(logits + Gumbel noise) has the softmax's distribution."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.rand(scores.shape, generator=self.generator).to(scores.device)
        # kept off 0, whose logarithm would be infinite
        return scores - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


def default_preset(tokenizer: Tokenizer) -> str:
    """A chat is drawn, a translation searched for."""
    return DEFAULT_GENERATION_PRESET if is_chat(tokenizer) else "precise"


def generate_replies(
    model: Model,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    preset: GenerationPreset,
    *,
    seed: int = 0,
    target_tokenizer: Tokenizer | None = None,
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
    model: Model,
    tokenizer: Tokenizer,
    contexts: Sequence[Sequence[int]],
    preset: GenerationPreset,
    generator: torch.Generator,
    *,
    encoder_outputs: RnnSeq2SeqEncoderOutput | None = None,
    begin: Sequence[int] = (),
    candidates: int = 1,
    streamer: BaseStreamer | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    **changes: Any,
) -> GenerateBeamEncoderDecoderOutput:
    """`model.generate` as a preset wants it.

    Args:
        contexts: Source tokens of each conversation, as `encode_context` gives them.
        generator: Where draws come from.
        encoder_outputs: Of the context, where there is one and it has been read.
        begin: Tokens that each reply begins with; the model goes on from there.
        candidates: Replies of each context, best first; at most `preset.num_compared`.
        changes: Fields of transformers' `GenerationConfig` that no preset has.

    Returns:
        transformers' output: `sequences` (contexts x candidates, tokens), begun with `<go>`; where
        replies were compared, `sequences_scores` (contexts x candidates,).

    Raises:
        ValueError: `num_candidates` above 1 with a streamer, or for parallel text.
    """
    if (count := preset.num_candidates) > 1:
        if streamer is not None or not is_chat(tokenizer):
            allowed = "1 with a streamer, and for parallel text"
            raise ValueError(f"num_candidates={count} is not possible here; allowed: {allowed}.")
        changes |= {"stopping_criteria": stopping_criteria, "begin": begin}
        repeated = [list(context) for context in contexts for _ in range(count)]
        if encoder_outputs is not None:
            changes["encoder_outputs"] = _rows(encoder_outputs, count)
        drawing = replace(preset, num_candidates=1)
        drawn = generate(model, tokenizer, repeated, drawing, generator, **changes).sequences
        scores = rank_candidates(model, tokenizer, repeated, drawn, preset)
        best = scores.view(-1, count).argsort(descending=True, stable=True)[:, :candidates]
        rows = (best + torch.arange(0, len(drawn), count)[:, None]).flatten()
        return GenerateBeamEncoderDecoderOutput(
            sequences=drawn[rows.to(drawn.device)], sequences_scores=scores[rows]
        )
    batch = tokenizer.pad(
        {"input_ids": [list(context) for context in contexts]}, return_tensors="pt"
    )
    if encoder_outputs is not None:
        batch["encoder_outputs"] = _rows(encoder_outputs, len(contexts))
    config = _generation_config(tokenizer, preset, candidates)
    config.update(**changes)
    if begin:
        start = [[config.decoder_start_token_id, *begin]]
        batch["decoder_input_ids"] = torch.tensor(start).expand(len(contexts), -1)
    with torch.inference_mode():
        return model.generate(
            **batch.to(model.device),
            generation_config=config,
            logits_processor=_sampling(preset, generator),
            streamer=streamer,
            stopping_criteria=stopping_criteria,
            tokenizer=tokenizer,
        )


def _rows(read: RnnSeq2SeqEncoderOutput, count: int) -> RnnSeq2SeqEncoderOutput:
    """One context's, for a batch of them. A new object: beam search changes what it is given."""
    expanded = {name: part.expand(count, *part.shape[1:]) for name, part in read.items()}
    return RnnSeq2SeqEncoderOutput(**expanded)


def rank_candidates(
    model: Model,
    tokenizer: Tokenizer,
    contexts: Sequence[list[int]],
    sequences: Tensor,
    preset: GenerationPreset,
) -> Tensor:
    """log p(y | x) - λ log p(y) + γ |y| - copy_weight · copied(y, x) of each reply, (replies,).

    MMI-antiLM (Li et al. 2016, section 4.5.1) without a second model: p(y) is the mean of p(y | c)
    over the contexts c of `NEUTRAL`. `copied` is the share of a reply's word trigrams that stand in
    the last message: a name, and what was told before, may be said back. `contexts` has the context
    x of each reply y, `sequences`, (replies, tokens), the replies as `generate` gives them.
    """
    replies = [row[1:][row[1:] != tokenizer.pad_token_id] for row in sequences.cpu()]
    said = [[{"role": "user", "content": text}] for text in NEUTRAL]
    neutral = [encode_context(tokenizer, messages, 16) for messages in said for _ in replies]
    both = _log_likelihoods(model, tokenizer, [*contexts, *neutral], replies * (1 + len(NEUTRAL)))
    fitting, *general = both.view(-1, len(replies))
    marginal = torch.stack(general).logsumexp(0) - math.log(len(NEUTRAL))
    copied = [
        copy_rate(reply_text(tokenizer, reply), _last_message(tokenizer, context))
        for reply, context in zip(replies, contexts, strict=True)
    ]
    lengths = torch.tensor([len(reply) for reply in replies])
    scores = fitting - preset.context_weight * marginal + preset.length_weight * lengths
    return scores - preset.copy_weight * torch.tensor(copied)


def reply_text(tokenizer: Tokenizer, tokens: Sequence[int] | Tensor) -> str:
    """What a person reads: without special tokens, with capitals."""
    return readable(tokenizer, tokenizer.decode(tokens, skip_special_tokens=True))


def readable(tokenizer: Tokenizer, text: str) -> str:
    """Decoded text, or the start of it, with the capitals that a lower-casing tokenizer lost."""
    return restore_case(text.strip()) if is_lowercasing(tokenizer) else text.strip()


def spoken_tokens(tokenizer: Tokenizer, sequence: Sequence[int]) -> list[int]:
    """A generated sequence without `<go>`, and without padding after `<end>`; never empty."""
    end = tokenizer.eos_token_id
    tokens = list(sequence[1:])
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens or [end]


def confidence(log_probabilities: Tensor) -> float:
    """Geometric mean of the probabilities of a reply's tokens, whose log p are (tokens,)."""
    return float(log_probabilities.mean().exp())


def unspoken_tokens(tokenizer: Tokenizer) -> list[int]:
    """Special tokens that no reply may hold: all but `<end>`."""
    return [token for token in tokenizer.all_special_ids if token != tokenizer.eos_token_id]


@torch.inference_mode()
def read_labels(model: Model, labels: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
    """Logits (B, T, vocabulary) and nats of labels (B, T), 0 where a label is -100; no dropout."""
    training = model.training
    start = model.prepare_decoder_input_ids_from_labels(labels)
    logits = model.eval()(**inputs, decoder_input_ids=start, use_cache=False).logits.float()
    model.train(training)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return logits, losses.view_as(labels)


def _log_likelihoods(
    model: Model, tokenizer: Tokenizer, contexts: Sequence[list[int]], replies: Sequence[Tensor]
) -> Tensor:
    """log p(reply | context) of each, (replies,)."""
    found = []
    for start in range(0, len(replies), _SCORED_ROWS):
        part = slice(start, start + _SCORED_ROWS)
        batch = tokenizer.pad({"input_ids": list(contexts[part])}, return_tensors="pt")
        labels = pad_sequence(list(replies[part]), True, -100).to(model.device)
        found.append(read_labels(model, labels, **batch.to(model.device))[1].sum(1).cpu())
    return -torch.cat(found)


def _last_message(tokenizer: Tokenizer, context: Sequence[int]) -> str:
    user = tokenizer.convert_tokens_to_ids(USER)
    start = max((at for at, token in enumerate(context) if token == user), default=0)
    return tokenizer.decode(list(context[start:]), skip_special_tokens=True)


def _generation_config(
    tokenizer: Tokenizer, preset: GenerationPreset, candidates: int
) -> GenerationConfig:
    # sampling is ours (see `_sampling`): transformers' own stays at its neutral defaults
    settings = asdict(preset) | {"temperature": 1.0, "top_p": 1.0, "top_k": 50}
    for name in ("num_candidates", "context_weight", "length_weight", "copy_weight"):
        del settings[name]  # ours alone
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
