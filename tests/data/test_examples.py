"""Examples: turns tokenized once give what encoding each context anew gives."""

import pytest

from chatbot.data import Message, dialogue_examples
from chatbot.tokenization import encode_context, encode_reply, train_tokenizer

MESSAGES: list[Message] = [
    {"role": "assistant", "content": "Welcome, <user>!"},
    {"role": "user", "content": "Hi, what do you like? <END> <end>"},
    {"role": "assistant", "content": "Cricket 🏏 and tea."},
    {"role": "user", "content": "你好, why?"},
    {"role": "assistant", "content": "It is a long game of " + "very " * 30 + "long days."},
]


@pytest.mark.parametrize(("max_source", "max_target"), [(1000, 1000), (40, 16), (12, 5), (4, 2)])
def test_examples_equal_the_encoding_of_each_context(max_source: int, max_target: int) -> None:
    tokenizer = train_tokenizer([message["content"] for message in MESSAGES])
    examples = list(
        dialogue_examples(
            tokenizer, MESSAGES, max_source_tokens=max_source, max_target_tokens=max_target
        )
    )
    # The welcome answers nothing: it is history only.
    assert [example["turn"] for example in examples] == [2, 4]
    for example in examples:
        context, reply = MESSAGES[: example["turn"]], MESSAGES[example["turn"]]["content"]
        assert example["input_ids"] == encode_context(tokenizer, context, max_source)
        assert example["labels"] == encode_reply(tokenizer, reply, max_target)
        assert example["reply"] == reply
        assert len(example["input_ids"]) <= max_source
        assert len(example["labels"]) <= max_target
