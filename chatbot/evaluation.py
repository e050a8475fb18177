"""Measures: perplexity under teacher forcing, and what replies look like."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from chatbot.modeling import RnnSeq2SeqForConditionalGeneration


@dataclass(frozen=True)
class Perplexity:
    """Sums behind a perplexity.

    Args:
        nats: -log p of all target tokens, each reply's `<end>` included.
        tokens: Target tokens, `<end>` included.
        words: White-space words of the replies; `<end>` is none.
    """

    nats: float
    tokens: int
    words: int

    @property
    def per_token(self) -> float:
        return math.exp(self.nats / self.tokens)

    @property
    def per_word(self) -> float:
        """Comparable between tokenizers, as `per_token` is not."""
        return math.exp(self.nats / self.words)

    def __str__(self) -> str:
        return f"{self.per_token:.1f} per token, {self.per_word:.1f} per word"


@dataclass(frozen=True)
class SourcePerplexity:
    """Perplexity on the replies of one source, or of all."""

    name: str
    replies: int
    perplexity: Perplexity

    def __str__(self) -> str:
        return f"{self.name}: {self.perplexity} ({self.replies:,} replies)"


def measure_perplexity(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    examples: Dataset,
    batch_size: int = 64,
) -> Perplexity:
    """Teacher-forced perplexity of prepared examples, every token weighing the same.

    Raises:
        ValueError: There are no examples.
    """
    _check_not_empty(examples)
    collate = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8)
    nats, tokens, words = 0.0, 0, 0
    training = model.training
    model.eval()
    for rows in _by_length(examples, batch_size):
        features = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
        batch = collate(features).to(model.device)
        labels = batch.pop("labels")
        with torch.inference_mode():
            start = model.prepare_decoder_input_ids_from_labels(labels)
            logits = model(**batch, decoder_input_ids=start, use_cache=False).logits.float()
            nats += F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum").item()
        tokens += int((labels != -100).sum())
        replies = tokenizer.batch_decode([row["labels"] for row in rows], skip_special_tokens=True)
        words += sum(len(reply.split()) for reply in replies)
    model.train(training)
    return Perplexity(nats, tokens, words)


def perplexity_by_source(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    examples: Dataset,
) -> list[SourcePerplexity]:
    """Perplexity on each source, and last on all of them. Errors as in `measure_perplexity`."""
    _check_not_empty(examples)
    sources = np.array(examples["source"])
    parts = []
    for name in sorted(set(sources)):
        part = examples.select(np.flatnonzero(sources == name))
        measured = measure_perplexity(model, tokenizer, part)
        parts.append(SourcePerplexity(str(name), len(part), measured))
    sums = [part.perplexity for part in parts]
    whole = Perplexity(
        sum(part.nats for part in sums),
        sum(part.tokens for part in sums),
        sum(part.words for part in sums),
    )
    return [*parts, SourcePerplexity("all", len(examples), whole)]


def distinct(replies: Sequence[str], n: int) -> float:
    """Distinct word n-grams over all of them (Li et al. 2016)."""
    grams = Counter(gram for reply in replies for gram in ngrams(reply, n))
    return len(grams) / max(1, grams.total())


def loop_rate(reply: str, n: int = 3) -> float:
    """Share of a reply's word n-grams that it has said before."""
    grams = ngrams(reply, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copy_rate(reply: str, message: str, n: int = 3) -> float:
    """Share of a reply's word n-grams that stand in the message it answers."""
    grams, said = ngrams(reply, n), set(ngrams(message, n))
    return sum(gram in said for gram in grams) / len(grams) if grams else 0.0


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Runs of n lower-cased words, punctuation left out."""
    words = "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def _check_not_empty(examples: Dataset) -> None:
    if not len(examples):
        raise ValueError("There are no examples to measure perplexity on.")


def _by_length(examples: Dataset, batch_size: int) -> Iterator[list[dict]]:
    """Batches of examples of like length: little padding."""
    lengths = [len(source) for source in examples["input_ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield examples.select(order[start : start + batch_size]).to_list()
