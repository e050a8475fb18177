"""The split by hash, against digests computed outside the package (`printf ... | sha256sum`)."""

import pytest

from chatbot.data import Message, is_test, normalized_text, split_of
from chatbot.data.splits import dialogue_digest


def dialogue(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def test_normalized_text() -> None:
    assert (
        normalized_text(dialogue("  What's UP?! ", "Ⅳ_ﬁlms: Café №5…"))
        == "what s up\niv films café no5"
    )
    assert normalized_text(dialogue("👍", "\ud83d")) == "\n"


@pytest.mark.parametrize(
    ("number", "digest", "split"),
    [
        (30, "29cf04e20a2f6a91cc957c474e23a0a1a1d6a40831c15a343efafa9bf46c9972", "test"),
        (7, "e84da5bd41adfa45f526ee77880422381bf70a6f119c54d1768b1ba4a735b5dd", "validation"),
        (175, "f5417e5ce2faeab368913d20380cd5613381451ff89455ae4423c9c9315c9528", "validation"),
    ],
)
def test_the_digest_decides(number: int, digest: str, split: str) -> None:
    messages = dialogue("HELLO!", f"Number: {number}")
    assert normalized_text(messages) == f"hello\nnumber {number}"
    assert dialogue_digest(messages).hex() == digest
    assert int(digest, 16) % 50 in {"test": (0,), "validation": (1, 2)}[split]
    assert split_of(dialogue_digest(messages)) == split
    assert is_test(messages) == (split == "test")


def test_about_one_in_fifty_is_held_out() -> None:
    held_out = sum(is_test(dialogue("hi", f"number {number}")) for number in range(5000))
    assert 70 <= held_out <= 130
