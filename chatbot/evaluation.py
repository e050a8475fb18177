"""Evaluation: what a model gives the true replies, and what it says itself.

One teacher-forced pass keeps the nats of every target token; perplexities of all kinds are sums
of them. Intervals draw whole dialogues anew: the replies of one are not independent.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.utils import tqdm
from numpy.typing import ArrayLike, NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorForSeq2Seq
from transformers import PreTrainedTokenizerFast as Tokenizer

from chatbot.decoding import generate, read_labels, reply_text
from chatbot.metrics import Estimate, bootstrap_interval, copy_rate, loop_rate, ratio, word_f1
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration as Model
from chatbot.presets import GenerationPreset
from chatbot.tokenization import BOT, USER

Array = NDArray[Any]
Measures = dict[str, Estimate]
Table = list[dict[str, Any]]
Scale = Callable[[float], float]
# For each title sums and what they are of, (items,), and what is done with their ratio.
Columns = dict[str, tuple[ArrayLike, ArrayLike, Scale]]


def perplexity(nats: float) -> float:
    """e to the power of the nats of one token, word or byte; infinite past what a float holds."""
    return math.exp(nats) if nats < 709 else math.inf


@dataclass(frozen=True)
class Perplexity:
    """Sums behind a perplexity.

    Args:
        nats: -log p of all target tokens, each reply's `<end>` included.
        tokens: Target tokens, `<end>` included.
        words: White-space words of the replies; `<end>` is none, an `<unk>` is one.
    """

    nats: float
    tokens: int
    words: int

    @property
    def per_token(self) -> float:
        return perplexity(self.nats / self.tokens)

    @property
    def per_word(self) -> float:
        """Comparable between tokenizers, as `per_token` is not."""
        return perplexity(self.nats / self.words)

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


@dataclass(frozen=True)
class TokenScores:
    """What teacher forcing says of examples, in their order.

    Args:
        nats: -log p of each target token, example after example, (tokens,).
        right: Whether that token is the likeliest, (tokens,).
        tokens, words: Counts as in `Perplexity`, of each example, (examples,).
        bytes: Those of the replies in UTF-8, as the model is asked to say them, (examples,).
    """

    nats: Array
    right: Array
    tokens: Array
    words: Array
    bytes: Array

    def sums(self, values: Array) -> Array:
        """Sums over the tokens of each example, (examples,)."""
        return np.add.reduceat(values, np.cumsum(self.tokens) - self.tokens, dtype=float)

    def perplexity(self, of: Array | slice = slice(None)) -> Perplexity:
        nats, tokens, words = self.sums(self.nats)[of], self.tokens[of], self.words[of]
        return Perplexity(float(nats.sum()), int(tokens.sum()), int(words.sum()))


def score_tokens(
    model: Model, tokenizer: Tokenizer, examples: Dataset, batch_size: int = 64
) -> TokenScores:
    """Read all replies by teacher forcing. Raises ValueError where there are none."""
    if not len(examples):
        raise ValueError("There are no examples to measure perplexity on.")
    tokens = np.array([len(labels) for labels in examples["labels"]])
    starts, nats = np.cumsum(tokens) - tokens, np.zeros(tokens.sum(), np.float32)
    right, words, size = np.zeros(len(nats), bool), np.zeros_like(tokens), np.zeros_like(tokens)
    collate = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8)
    examples = examples.select_columns(["input_ids", "labels"])
    for of, rows in _batches(examples, batch_size, "perplexity"):
        said = tokenizer.batch_decode([row["labels"][:-1] for row in rows])  # without <end>
        words[of] = [len(text.split()) for text in said]
        size[of] = [len(text.encode()) for text in said]
        batch = collate(rows).to(model.device)
        labels = batch.pop("labels")
        logits, losses = read_labels(model, labels, **batch)
        place = np.concatenate([np.arange(starts[i], starts[i] + tokens[i]) for i in of])
        nats[place] = losses[labels != -100].cpu()
        right[place] = (logits.argmax(-1) == labels)[labels != -100].cpu()
    return TokenScores(nats, right, tokens, words, size)


def measure_perplexity(
    model: Model, tokenizer: Tokenizer, examples: Dataset, batch_size: int = 64
) -> Perplexity:
    """Perplexity of prepared examples, every token weighing the same. Errors: `score_tokens`."""
    return score_tokens(model, tokenizer, examples, batch_size).perplexity()


def perplexity_by_source(
    model: Model, tokenizer: Tokenizer, examples: Dataset
) -> list[SourcePerplexity]:
    """Perplexity on each source, and last on all of them. Errors as in `score_tokens`."""
    scores, sources = score_tokens(model, tokenizer, examples), np.array(examples["source"])
    groups = {str(name): sources == name for name in np.unique(sources)} | {"all": sources != ""}
    measured = {name: (int(of.sum()), scores.perplexity(of)) for name, of in groups.items()}
    return [SourcePerplexity(name, *of) for name, of in measured.items()]


def dialogue_sums(dialogues: ArrayLike, *columns: ArrayLike) -> Array:
    """Sums of each column, (items,) or one number, over each dialogue, (dialogues, columns)."""
    _, of = np.unique(dialogues, return_inverse=True)
    return np.stack([np.bincount(of, np.broadcast_to(each, of.shape)) for each in columns], axis=1)


def estimate(
    dialogues: ArrayLike, sums: ArrayLike, sizes: ArrayLike = 1, scale: Scale = float
) -> Estimate:
    """`scale` of all sums over all sizes, (items,), and its 95 % interval over dialogues."""
    rows = dialogue_sums(dialogues, sums, sizes)
    if len(rows) == 1:  # of other dialogues it tells nothing
        return {"value": scale(ratio(rows))}
    low, high = bootstrap_interval(rows, lambda drawn: scale(ratio(drawn)))
    return {"value": scale(ratio(rows)), "low": low, "high": high}


def group_table(columns: Columns, dialogues: ArrayLike, names: ArrayLike) -> Table:
    """The estimates of `columns` for each group of items that `names`, (items,), makes."""
    table, groups = [], np.asarray(names)
    for name in np.unique(groups):
        at = groups == name
        row = {"name": name.item(), "count": int(at.sum())}
        for title, (sums, sizes, scale) in columns.items():
            of, a, b = (np.broadcast_to(each, at.shape)[at] for each in (dialogues, sums, sizes))
            row[title] = estimate(of, a, b, scale)
        table.append(row)
    return table


def perplexity_columns(scores: TokenScores) -> Columns:
    """Perplexities and accuracy, for `group_table` of examples."""
    nats, right = scores.sums(scores.nats), scores.sums(scores.right)
    return {
        "perplexity per token": (nats, scores.tokens, perplexity),
        "perplexity per word": (nats, scores.words, perplexity),
        "perplexity per byte": (nats, scores.bytes, perplexity),
        "accuracy": (right, scores.tokens, float),
    }


def rarity_table(scores: TokenScores, examples: Dataset, train: Dataset) -> Table:
    """Perplexity of target tokens, by how often the replies of `train` hold them: 0, 1, 10, ..."""
    tokens, learned = (np.concatenate(data["labels"]) for data in (examples, train))
    counts = np.bincount(learned, minlength=tokens.max() + 1)[tokens]
    bands = np.where(counts, 10 ** np.log10(np.maximum(counts, 1)).astype(int), 0)
    columns: Columns = {"perplexity per token": (scores.nats, 1, perplexity)}
    return group_table(columns, np.repeat(examples["dialogue"], scores.tokens), bands)


def context_measures(model: Model, tokenizer: Tokenizer, examples: Dataset) -> Measures:
    """What a context is worth: perplexity per token with it, its last turn, another example's."""
    contexts, labels = examples["input_ids"], examples["labels"]
    order = np.random.default_rng(0).permutation(len(contexts))
    other = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    measured = {}
    for name, given in {
        "its context": contexts,
        "the last turn of it": [last_turn(tokenizer, context) for context in contexts],
        "another's context": [contexts[other[place]] for place in range(len(contexts))],
    }.items():
        changed = Dataset.from_dict({"input_ids": given, "labels": labels})
        scores = score_tokens(model, tokenizer, changed)
        nats = scores.sums(scores.nats)
        measured[name] = estimate(examples["dialogue"], nats, scores.tokens, perplexity)
    return measured


@torch.inference_mode()
def rank_replies(
    model: Model, tokenizer: Tokenizer, examples: Dataset, pool: Dataset, count: int = 20
) -> Measures:
    """How often the true reply wins against `count - 1` different replies, drawn from `pool`.

    By log p(reply | context), and by that of its mean token; level with n others: 1/(n + 1) a win.
    The model is in evaluation mode.
    """
    draw, others = np.random.default_rng(0), sorted({tuple(labels) for labels in pool["labels"]})
    ranked, wins = min(count, len(others)), np.zeros((2, len(examples)))
    for of, rows in _batches(examples, 16, "ranking"):
        replies: list[tuple[int, ...]] = []
        for true in (tuple(row["labels"]) for row in rows):
            drawn = (others[place] for place in draw.choice(len(others), ranked, replace=False))
            replies += [true, *(reply for reply in drawn if reply != true)][:ranked]
        contexts = {"input_ids": [row["input_ids"] for row in rows]}
        batch = tokenizer.pad(contexts, return_tensors="pt").to(model.device)
        encoded, lengths = model.get_encoder()(**batch), torch.tensor([*map(len, replies)])
        nats = torch.zeros(len(replies))
        for at in lengths.argsort().split(64):  # of like length: little padding
            padded = pad_sequence([torch.tensor(replies[i]) for i in at], True, -100)
            context, labels = (at // ranked).to(model.device), padded.to(model.device)
            again = type(encoded)(**{name: each[context] for name, each in encoded.items()})
            mask = batch["attention_mask"][context]
            nats[at] = (
                read_labels(model, labels, encoder_outputs=again, attention_mask=mask)[1]
                .sum(1)
                .cpu()
            )
        for by, scores in enumerate([nats, nats / lengths]):
            scores = scores.view(-1, ranked)
            best = scores[:, :1] == scores.amin(1, keepdim=True)
            wins[by, of] = (best / (scores == scores[:, :1]).sum(1, keepdim=True)).flatten()
    names = (f"hits@1/{ranked} by log p", f"hits@1/{ranked} by log p per token")
    shares = (estimate(examples["dialogue"], won) for won in wins)
    return dict(zip(names, shares, strict=True))


def predict(
    model: Model,
    tokenizer: Tokenizer,
    examples: Dataset,
    preset: GenerationPreset,
    seed: int = 0,
    source_tokenizer: Tokenizer | None = None,
) -> Iterator[dict[str, Any]]:
    """A record of each example and of what the model says to it, in the order of their lengths."""
    reader = source_tokenizer or tokenizer
    generator = torch.Generator().manual_seed(seed)
    silent = {tokenizer.pad_token_id, tokenizer.bos_token_id}
    examples = examples.remove_columns("labels").rename_column("reply", "reference")
    for _, rows in _batches(examples, 64, "replies"):
        contexts = [row.pop("input_ids") for row in rows]
        replies = generate(model, tokenizer, contexts, preset, generator).sequences.tolist()
        for row, context, reply in zip(rows, contexts, replies, strict=True):
            said = [token for token in reply if token not in silent]
            message = reader.decode(last_turn(reader, context), skip_special_tokens=True)
            text = reply_text(tokenizer, reply)
            yield row | {
                "context": reader.decode(context),
                "message": message,
                "prediction": text,
                "f1": word_f1(text, row["reference"]),
                "words": len(text.split()),
                "loop": loop_rate(text),
                "copy": copy_rate(text, message),
                "tokens": len(said),
                "unknown": said.count(tokenizer.unk_token_id),
            }


def last_turn(tokenizer: Tokenizer, context: Sequence[int]) -> list[int]:
    """The newest message of a context, from its speaker on to the final `<bot>`."""
    speakers = tokenizer.convert_tokens_to_ids([USER, BOT])
    starts = [place for place, token in enumerate(context[:-1]) if token in speakers]
    return list(context[starts[-1] if starts else 0 :])


def _batches(examples: Dataset, size: int, doing: str) -> Iterator[tuple[list[int], Table]]:
    """Places and rows of examples of like length: little padding."""
    lengths = [len(source) for source in examples["input_ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in tqdm(range(0, len(order), size), doing, disable=None, leave=False):
        chosen = order[start : start + size]
        yield chosen, examples.select(chosen).to_list()
