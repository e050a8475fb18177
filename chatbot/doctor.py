"""First aid: what ails a model, the likeliest cause first, and what to do about it.

Greedy replies are counted, and the loss is taken in contexts that were tampered with. `MEASURES` is
the one table of thresholds and advice; docs/first-aid.md repeats it.
"""

import json
import re
from dataclasses import asdict, dataclass
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast as Tokenizer

from chatbot import metrics
from chatbot.data import REPORT_NAME, Split, dialogue_shards, load_prepared
from chatbot.data.dullness import read_shard
from chatbot.decoding import generate, reply_text, spoken_tokens, unspoken_tokens
from chatbot.evaluation import TokenScores, last_turn, score_tokens
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration as Model
from chatbot.presets import generation_preset
from chatbot.tokenization import SPECIAL_TOKENS, encode_context, encode_reply, is_chat

VERDICTS = ("good", "weak", "broken")
_DULL = re.compile(r"\b(don't|do not) (really )?know\b|\bnot (too |really )?sure\b|\bno idea\b")
_SPELLED = re.compile(f"< ?({'|'.join(token[1:-1] for token in SPECIAL_TOKENS)})>")
_POINT = ("threshold", "answered", "right", "f1")
Curve = list[dict[str, float]]
Rows = list[list[int]]
Columns = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """What is measured; what a person sees where it is not good, why, and what to do.

    A value beyond `weak` is weak, one beyond `broken` broken. That lies lower where less is worse.
    """

    key: str
    weak: float
    broken: float
    what: str
    seen: str
    why: str
    advice: str

    def verdict(self, value: float) -> str:
        sign = 1 if self.broken > self.weak else -1
        return VERDICTS[sum(sign * value > sign * limit for limit in (self.weak, self.broken))]


# In the order of the diagnosis: what causes much stands before what it causes.
# fmt: off
MEASURES = (
    Measure("template", 0, 0.01, "share of replies that data and tokenizer write differently",
        "replies fit nothing, or never end", "a chat is not written as it was in training",
        "prepare again with `--tokenizer MODEL`, train again; never edit a chat template"),
    Measure("unknown", 0.02, 0.1, "share of `<unk>` in the data, or in replies",
        "`<unk>`, or holes", "the vocabulary lacks the words of the data",
        "prepare with `--level bpe`, where nothing is unknown, or a larger `--vocab-size`"),
    Measure("sameness", 0.1, 0.5, "share of the commonest reference",
        "the same reply to everything", "one reply makes up much of the data",
        "prepare with `--max-reply-count 20`; find more varied data"),
    Measure("gap", 1, 2, "held-out loss less training loss, nats a token",
        "overfits: replies are pieces of the data", "few dialogues for many weights and epochs",
        "more dialogues; continue the shipped model; fewer epochs, more dropout, a smaller preset"),
    Measure("learned", 0.4, 0.9, "held-out perplexity over that of counted words",
        "the loss does not fall; word salad", "few dialogues or steps, or a bad learning rate",
        "train longer; try three times the learning rate, and a third; continue the shipped model"),
    Measure("reach", 0.05, 0.0001, "change of a token's log p in another context",
        "the same, whatever you say", "what the encoder reads does not reach the decoder",
        "use `attention: general` and `bridge: copy`; load the weights as they were saved"),
    Measure("context", 0.15, 0.03, "rise of the loss in another context, nats a token",
        "fluent nonsense", "replies stand at the wrong contexts, or training was short",
        "read ten lines of DATA/dialogues: columns, order, `--bot`; else more data, more epochs"),
    Measure("last turn", 0.1, 0.02, "rise of the loss after another last message",
        "forgets the last turn", "it drowns in what was said before",
        "use attention with a global window; prepare with fewer `--max-source-tokens`"),
    Measure("earlier turns", 0.02, -1, "rise of the loss after other earlier turns",
        "knows the last message only", "contexts are cut short, or the data need no more",
        "prepare with more `--max-source-tokens`; find longer dialogues; `copy: true` for names"),
    Measure("change", 0.5, 0.05, "share of greedy replies that change with the context",
        "the same reply to everything", "only what is said most often is learned so far",
        "train longer; more dialogues; prepare with `--max-reply-count 20`"),
    Measure("unique", 0.5, 0.1, "unique rate of greedy replies over the references'",
        "few replies to many messages", "safe ones are likeliest, and learned first",
        "chat with the preset `lively`; train longer; prepare with `--max-reply-count 20`"),
    Measure("commonest", 0.15, 0.4, "share of the commonest greedy reply",
        "one reply again and again", "it fits many messages, or the data hold it often",
        "chat with the preset `lively`; prepare with `--max-reply-count 20`"),
    Measure("loops", 0.05, 0.25, "share of three-word runs that a reply has said before",
        "loops: very very very very", "greedy search repeats what it is sure of",
        "chat with `lively` or `careful`, which repeat no three tokens; train longer"),
    Measure("copies", 0.1, 0.4, "share of three-word runs that stand in the message",
        "repeats what you say", "replies of the data do, or their lines stand there twice",
        "read ten lines of DATA/dialogues; train with `copy: false`"),
    Measure("dull", 0.15, 0.4, "share of greedy replies like I don't know, in English",
        "\"I don't know\" to everything", "it fits any message: no reply is likelier",
        "chat with `lively`; prepare with `--max-reply-count 20` or `--max-reply-entropy 4`"),
    Measure("length", 0.5, 0.2, "words of greedy replies for one of the references",
        "empty replies, or single words", "the data hold many, and short ones are likelier",
        "chat with `lively`; prepare with `--max-reply-count 20`"),
)
# fmt: on


@dataclass(frozen=True)
class Examination:
    """What was found on so many replies of a split: values by key, rows of `coverage_curve`."""

    split: str
    replies: int
    values: dict[str, float]
    curve: Curve

    @property
    def findings(self) -> list[tuple[str, Measure]]:
        """Measures and their verdicts, the likeliest diagnosis first."""
        found = [(m.verdict(self.values[m.key]), m) for m in MEASURES if m.key in self.values]
        return sorted(found, key=lambda finding: -VERDICTS.index(finding[0]))

    def as_json(self) -> str:
        verdicts = {measure.key: verdict for verdict, measure in self.findings}
        return json.dumps(asdict(self) | {"verdicts": verdicts}, indent=2)

    def __str__(self) -> str:
        lines = [f"{self.findings[0][0]}, by {self.replies} replies of the {self.split} split", ""]
        for verdict, m in self.findings:
            lines += [f"{self.values[m.key]:8.3f}  {verdict:<7}  {m.key}: {m.what}"]
            if verdict != "good":
                lines += [f"{'':19}{m.seen}", f"{'':19}why: {m.why}", f"{'':19}do: {m.advice}"]
        row = "{threshold:14.3f}{answered:10.0%}{right:7.0%}{f1:9.2f}"
        lines += ["", "min-confidence  answered  right  word F1"]
        return "\n".join([*lines, *(row.format(**point) for point in self.curve)])


def examine(
    model: Model, tokenizer: Tokenizer, folder: Path, split: Split = "validation", limit: int = 300
) -> Examination:
    """Examine a model on so many replies, drawn from a split of a folder that `prepare` wrote.

    Raises:
        FileNotFoundError, ValueError: As `load_prepared`; or there are fewer than two replies.
    """
    if not is_chat(tokenizer):
        raise ValueError("the model answers no chat (task seq2seq): only chats are examined.")
    data = load_prepared(folder, tokenizer)
    held = _sample(data[split], limit)
    contexts = held["input_ids"]
    if len(contexts) < 2:
        raise ValueError(
            f"{folder}: under 2 {split} replies (limit={limit}); name another --split."
        )
    replies = _greedy(model, tokenizer, contexts)
    held["said"] = texts = [reply_text(tokenizer, reply) for reply in replies]
    found = {
        "template": _strange(tokenizer, folder, split, held),
        **_losses(model, tokenizer, held, data["train"]),
        **_replies(model, tokenizer, held),
    }
    values = {key: float(np.mean(value)) for key, value in found.items() if np.size(value)}
    scores = _score(model, tokenizer, contexts, replies)
    sure = np.exp(-scores.sums(scores.nats) / scores.tokens).tolist()
    return Examination(split, len(texts), values, coverage_curve(sure, texts, held["reply"]))


def coverage_curve(confidences: list[float], replies: list[str], references: list[str]) -> Curve:
    """What is answered, and how much of that is right, where 100, 90, ..., 10 % are to be."""
    pairs, sure = list(zip(replies, references, strict=True)), np.asarray(confidences)
    right = [metrics.ngrams(said, 1) == metrics.ngrams(true, 1) for said, true in pairs]
    judged, curve = np.array([right, [metrics.word_f1(*pair) for pair in pairs]]), []
    thresholds = np.quantile(sure, np.linspace(0, 0.9, 10), method="midpoint")
    for threshold in np.floor(thresholds * 1000) / 1000:  # rounded up, it might let none pass
        passed = sure >= threshold
        numbers = [threshold, passed.mean(), *judged[:, passed].mean(axis=1)]
        curve.append(dict(zip(_POINT, map(float, numbers), strict=True)))
    return curve


def _losses(model: Model, tokenizer: Tokenizer, held: Columns, train: Dataset) -> Columns:
    """What the loss says, in true contexts and in those that were tampered with."""
    contexts, labels, known = held["input_ids"], held["labels"], _sample(train, 10_000)
    last = [last_turn(tokenizer, context) for context in contexts]
    earlier = [context[: -len(turn)] for context, turn in zip(contexts, last, strict=True)]
    tampered = {
        "context": contexts[1:] + contexts[:1],
        "last turn": list(map(add, earlier, last[1:] + last[:1])),
        "earlier turns": list(map(add, earlier[1:] + earlier[:1], last)),
    }
    truth = _score(model, tokenizer, contexts, labels).nats
    rises = {k: _score(model, tokenizer, v, labels).nats - truth for k, v in tampered.items()}
    long = np.repeat(list(map(len, earlier)), list(map(len, labels))) > 0
    counts = np.bincount(np.concatenate(known["labels"]), minlength=len(tokenizer)) + 1
    counted = np.log(counts / counts.sum())[np.concatenate(labels)].mean()
    sources, replies = (known[name][: len(labels)] for name in ("input_ids", "labels"))
    return {
        **rises,
        "earlier turns": rises["earlier turns"][long],
        "reach": abs(rises["context"]),
        "gap": truth.mean() - _score(model, tokenizer, sources, replies).nats.mean(),
        "learned": np.exp(truth.mean() + counted),
    }


def _replies(model: Model, tokenizer: Tokenizer, held: Columns) -> Columns:
    """What the references and the greedy replies look like."""
    contexts, true, texts = held["input_ids"], held["reply"], held["said"]
    messages = tokenizer.batch_decode([last_turn(tokenizer, c) for c in contexts], True)
    unk = tokenizer.unk_token_id
    silent = [token for token in unspoken_tokens(tokenizer) if token != unk]
    free = _greedy(model, tokenizer, contexts, suppress_tokens=silent)
    rates = [metrics.unknown_rate(rows, unk) for rows in (contexts, held["labels"], free)]
    return {
        "unknown": max(rates),
        "sameness": metrics.commonest_share(true, 1),
        "change": np.array(texts) != np.array(texts[1:] + texts[:1]),
        "unique": metrics.unique_rate(texts) / metrics.unique_rate(true),
        "commonest": metrics.commonest_share(texts, 1),
        "loops": list(map(metrics.loop_rate, texts)),
        "copies": list(map(metrics.copy_rate, texts, messages)),
        "dull": [bool(_DULL.search(text.lower())) for text in texts],
        "length": len(" ".join(texts).split()) / len(" ".join(true).split()),
    }


def _strange(tokenizer: Tokenizer, folder: Path, split: Split, held: Columns) -> list[bool]:
    """Whether the tokenizer writes an example otherwise than the data, or a reply spells tokens."""
    settings = json.loads((folder / REPORT_NAME).read_text("utf-8"))["settings"]
    longest, strange = settings["max_source_tokens"], []
    records = (record for shard in dialogue_shards(folder, split) for record in read_shard(shard))
    dialogues = {r["dialogue"]: r["messages"] for r in records if r["dialogue"] in held["dialogue"]}
    columns = (held[name] for name in ("said", "dialogue", "turn", "input_ids", "labels"))
    for text, dialogue, turn, *stored in zip(*columns, strict=True):
        *turns, reply = dialogues[dialogue][: turn + 1]
        chat = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        context = encode_context(tokenizer, turns, longest)
        labels = encode_reply(tokenizer, reply["content"], settings["max_target_tokens"])
        other = stored != [context, labels] or (len(chat) <= longest and chat != context)
        strange.append(other or bool(_SPELLED.search(text)))
    return strange


def _greedy(model: Model, tokenizer: Tokenizer, contexts: Rows, **changes: Any) -> Rows:
    preset, draws = generation_preset("greedy"), torch.Generator()
    parts = (contexts[start : start + 64] for start in range(0, len(contexts), 64))
    said = (generate(model, tokenizer, part, preset, draws, **changes) for part in parts)
    return [spoken_tokens(tokenizer, row) for part in said for row in part.sequences.tolist()]


def _score(model: Model, tokenizer: Tokenizer, contexts: Rows, labels: Rows) -> TokenScores:
    pairs = Dataset.from_dict({"input_ids": contexts, "labels": labels})
    return score_tokens(model, tokenizer, pairs)


def _sample(examples: Dataset, count: int) -> Columns:
    places = np.random.default_rng(0).permutation(len(examples))
    return dict(examples[places[: max(0, count)]])
