"""Cleaning of texts and dialogues."""

import pytest

from chatbot.data import DropReason, Message, clean_dialogue, clean_text


def turns(*texts: str) -> list[Message]:
    """Messages from `u:text` and `a:text`."""
    roles = {"u": "user", "a": "assistant"}
    return [Message(role=roles[text[0]], content=text[2:]) for text in texts]  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  two\t\r\n lines\u00a0\u2003here ", "two lines here"),
        ("e\u0301", "é"),
        ("e\u200b\u0301 \ufeffbell\x07 soft\u00adly \u202eevil\u202c", "é bell softly evil"),
        ("half \ud83d pair", "half pair"),
        ("👨\u200d👩\u200d👧 👍🏽", "👨\u200d👩\u200d👧 👍🏽"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\x85b\x1cc", "a b c"),
        ("\u200b \x00", ""),
    ],
)
def test_clean_text(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean
    assert clean_text(clean) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (["u:hi", "a:hello"], ["u:hi", "a:hello"]),
        (["u:hi", "u: there ", "a:hello"], ["u:hi there", "a:hello"]),
        (["u:hi", "a: ", "u:there", "a:hello"], ["u:hi there", "a:hello"]),
        (["a:welcome", "u:hi", "a:hello"], ["a:welcome", "u:hi", "a:hello"]),
        (["u:hi", "a:hello", "u:bye"], ["u:hi", "a:hello", "u:bye"]),
    ],
)
def test_clean_dialogue(raw: list[str], clean: list[str]) -> None:
    assert clean_dialogue(turns(*raw)) == turns(*clean)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (["u: ", "a:\u200b"], DropReason.EMPTY),
        (["u:hi"], DropReason.ONE_TURN),
        (["u:hi", "u:anyone?", "a: "], DropReason.ONE_TURN),
        (["a:welcome", "u:hi"], DropReason.NO_REPLY),
    ],
)
def test_dialogues_that_teach_nothing_are_dropped(raw: list[str], reason: DropReason) -> None:
    assert clean_dialogue(turns(*raw)) is reason
