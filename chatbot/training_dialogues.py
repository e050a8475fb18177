"""Whole dialogues to train on: the replies of one share what stands before them.

Examples (`chatbot.data.examples`) repeat their dialogue for each reply. Put together again, a
dialogue is read once for all of its replies: `reply_positions` of the model's `forward`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from chatbot.tokenization import BOT

_COLUMNS = ("dialogue", "turn", "input_ids", "labels")
_LENGTHS = 3  # kinds of them; batches of one exact length would be of one kind of talk
NO_LABEL = -100


def join_replies(
    examples: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    max_tokens: int,
    cache: Path,
    *,
    anew: bool = True,
) -> Dataset:
    """Examples of one dialogue as one row, as far as `max_tokens` go.

    A dialogue that is longer goes on in a further row, which begins with as much history as the
    example has that it begins with.

    Args:
        examples: Of one dialogue side by side, in the order of its turns.
        tokenizer: What they were made with.
        max_tokens: Of a row; one that a single example fills may be longer.
        cache: File that holds the rows, so that memory need not.
        anew: Whether to write it; else it is there.

    Returns:
        Rows of `input_ids`, `reply_positions` (the `<bot>` of each reply), `labels`, a list of
        each reply's, and `length`, by which the Trainer groups them: which third of `max_tokens`.
    """
    bot = tokenizer.convert_tokens_to_ids(BOT)

    def join(batch: Mapping[str, list]) -> dict[str, list]:
        rows = list(_join(zip(*(batch[name] for name in _COLUMNS), strict=True), bot, max_tokens))
        lengths = [-(-_LENGTHS * len(row["input_ids"]) // max_tokens) for row in rows]
        return {name: [row[name] for row in rows] for name in rows[0]} | {"length": lengths}

    return examples.map(
        join,
        batched=True,
        remove_columns=examples.column_names,
        cache_file_name=str(cache),
        load_from_cache_file=not anew,
        desc="Joining dialogues",
    )


def _join(
    examples: Iterator[tuple[int, int, list[int], list[int]]], bot: int, max_tokens: int
) -> Iterator[dict[str, list]]:
    row: dict[str, list] = {}
    following = None  # dialogue and turn that would go on
    for dialogue, turn, context, labels in examples:
        new = _since_last_reply(context, bot)
        longer = row["input_ids"] + new if row else []
        goes_on = new and (dialogue, turn) == following and len(longer) <= max_tokens
        if goes_on and longer[-len(context) :] == context:
            row["input_ids"] = longer
        else:
            if row:
                yield row
            row = {"input_ids": list(context), "reply_positions": [], "labels": []}
        row["reply_positions"].append(len(row["input_ids"]) - 1)
        row["labels"].append(labels)
        following = dialogue, turn + 2
    yield row


def _since_last_reply(context: list[int], bot: int) -> list[int]:
    """What a context has after the `<bot>` before its last: `REPLY<end><user>...<bot>`."""
    places = [place for place, token in enumerate(context) if token == bot]
    return context[places[-2] + 1 :] if len(places) > 1 else []


class ReplyCollator(DataCollatorForSeq2Seq):
    """Pads pairs as transformers does, and dialogues of several replies as the model takes them."""

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: Any = None) -> Any:
        if "reply_positions" not in features[0]:
            return super().__call__(list(features), return_tensors)
        positions = self._padded([item["reply_positions"] for item in features], -1, multiple=1)
        replies = [reply for item in features for reply in item["labels"]]
        padded = self._padded(replies, NO_LABEL)
        labels = padded.new_full((*positions.shape, padded.shape[1]), NO_LABEL)
        labels[positions >= 0] = padded
        pad = self.tokenizer.pad_token_id
        return {
            "input_ids": self._padded([item["input_ids"] for item in features], pad),
            "reply_positions": positions,
            "labels": labels,
        }

    def _padded(
        self, rows: Sequence[Sequence[int]], value: int, multiple: int | None = None
    ) -> Tensor:
        """Rows as one tensor, its length a multiple of `pad_to_multiple_of` unless one is given."""
        step = multiple or self.pad_to_multiple_of or 1
        length = -(-max(len(row) for row in rows) // step) * step
        return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
