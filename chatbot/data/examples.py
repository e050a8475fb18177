"""Examples: each reply of a dialogue with the context that it answers; each target of a pair."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

from transformers import PreTrainedTokenizerFast

from chatbot.data.records import Message
from chatbot.tokenization import cut_reply, encode_reply, encode_turns, join_turns


class Example(TypedDict):
    """One reply to learn."""

    input_ids: list[int]
    """(source,) what `encode_context` gives for the turns before the reply."""
    labels: list[int]
    """(target,) what `encode_reply` gives for the reply."""
    reply: str
    """The whole reply as text, for metrics."""
    turn: int
    """Which message of the dialogue the reply is, from 0."""


def dialogue_examples(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    *,
    max_source_tokens: int,
    max_target_tokens: int,
) -> Iterator[Example]:
    """One example for each assistant turn that answers something. Each turn is tokenized once."""
    turns = encode_turns(tokenizer, messages)
    for index, message in enumerate(messages):
        if index > 0 and message["role"] == "assistant":
            yield Example(
                input_ids=join_turns(tokenizer, reversed(turns[:index]), max_source_tokens),
                labels=cut_reply(turns[index], max_target_tokens),
                reply=message["content"],
                turn=index,
            )


def pair_examples(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    *,
    target_tokenizer: PreTrainedTokenizerFast,
    max_source_tokens: int,
    max_target_tokens: int,
) -> Iterator[Example]:
    """The example of a pair, given as two messages. None where a side is too long: cut short, the
    two would not mean the same."""
    source, target = (message["content"] for message in messages)
    read = encode_reply(tokenizer, source, max_source_tokens + 1)
    written = encode_reply(target_tokenizer, target, max_target_tokens + 1)
    if len(read) <= max_source_tokens and len(written) <= max_target_tokens:
        yield Example(input_ids=read, labels=written, reply=target, turn=1)
