"""The steps that look at one dialogue: what they change and what they leave alone."""

import pytest

from chatbot.data import Cleaning, DropReason, Message
from chatbot.data.cleaning import Cleaned, StepLog, apply_steps
from chatbot.data.steps import (
    detokenize,
    emails,
    has_placeholder,
    has_profanity,
    html,
    language_of,
    phones,
    urls,
)


def exchange(*texts: str) -> list[Message]:
    return [
        Message(role="assistant" if turn % 2 else "user", content=text)
        for turn, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("<p>Tea &amp; <b>cake</b></p>", " Tea & cake "),
        ("one<br/>two", "one two"),
        ("a&lt;br&gt;b &#39;c&#x27; &eacute;", "a b 'c' é"),
        ("x<script>alert('&lt;')</script>y<!-- no -->z", "x y z"),
        ("<!-- a <!-- b --> c", "<!-- a   c"),
        ("<style>a<style>b</style>c", "<style>a c"),
        ('<a href="x" class="y">here</a>', "here"),
        ("I <3 you", None),
        ("<end> <user> <REDACTED> a<b and c>d", None),
        ("AT&T, R&D; and &unknown; stay, ?a=1&copy=2 too", None),
    ],
)
def test_html(raw: str, clean: str | None) -> None:
    assert html([raw]) == [raw if clean is None else clean]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("see https://a.example/x?y=1, ok", "see this link, ok"),
        ("(www.example.org)", "(this link)"),
        ("read blog.example.com/wren today", "read this link today"),
        ("I buy from shop.com and i.e. so", None),
        ("at http:// nothing", None),
    ],
)
def test_urls(raw: str, clean: str | None) -> None:
    assert urls([raw]) == [raw if clean is None else clean]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("write to ann.b+c@mail.example.org.", "write to this email address."),
        ("@home we meet @ five", None),
        ("a@b is no address", None),
    ],
)
def test_emails(raw: str, clean: str | None) -> None:
    assert emails([raw]) == [raw if clean is None else clean]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("call (555) 010-9999!", "call this phone number!"),
        ("555-0123 or 555 010 9999", "this phone number or this phone number"),
        ("+44 20 7946 0958, please", "this phone number, please"),
        ("020 7946 0958", "this phone number"),
        ("0301234567", "this phone number"),
        ("in 1990-2000 or 200-2010", None),
        ("on 12-10-2020, 2020-10-12 and 12/10/2020", None),
        ("it costs $1,000,000 or 10 000 000", None),
        ("pi is 3.14159265358979", None),
        ("flight 4711 at 10:30 to 12:45", None),
    ],
)
def test_phones(raw: str, clean: str | None) -> None:
    assert phones([raw]) == [raw if clean is None else clean]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("I do n't know , sir .", "I don't know, sir."),
        ("It 's ours ; we 'll see !", "It's ours; we'll see!"),
        ("I don ’ t , they ' re", "I don’t, they're"),
        ("I 'm gon na go , ok ?", "I'm gonna go, ok?"),
        ("( yes ) , `` no '' .", '(yes), "no".'),
        ('so " this " , and "that" , both', 'so "this", and "that", both'),
        ("well , that ... was :) fun", "well, that ... was :) fun"),
        ("Ça va ? Oui !", None),
        ("wait ... what :) ;)", None),
        ("the .5 and 'em", None),
    ],
)
def test_detokenize(raw: str, clean: str | None) -> None:
    assert detokenize([raw]) == [raw if clean is None else clean]


def test_one_sign_of_a_tokenizer_restores_the_whole_dialogue() -> None:
    assert detokenize(["How are you ?", "Fine , thanks ."]) == ["How are you?", "Fine, thanks."]


@pytest.mark.parametrize(
    "text",
    [
        "I'm [user 1's name].",
        "Hi (name)!",
        "(user 2 name), hello",
        "Hello <REDACTED_TERM>",
        "[NAME] lives in [city]",
        "Dear {{name}}",
        "call XXXX",
        "[Your Name]",
        "[insert a joke]",
    ],
)
def test_placeholders(text: str) -> None:
    assert has_placeholder(text)


@pytest.mark.parametrize(
    "text",
    [
        "my city (the old one) has a name",
        "[laughs] I see",
        "(person to person)? I <3 that",
        "a film (named Bird) and a list [1]",
        "<end> <user>",
        "xoxo, XXL",
    ],
)
def test_what_is_no_placeholder(text: str) -> None:
    assert not has_placeholder(text)


def test_profanity_by_whole_words() -> None:
    pytest.importorskip("better_profanity")
    assert has_profanity("What the HELL!")
    assert not has_profanity("Hello, Scunthorpe: a classic assessment.")


def test_language() -> None:
    pytest.importorskip("py3langid")
    assert language_of("Dove abiti? Io abito in una piccola città vicino al mare.") == "it"
    assert language_of("Where do you live? I live in a small town by the sea.") == "en"
    assert language_of("ok, ok!") is None


def test_each_step_counts_and_can_be_left_out() -> None:
    said = exchange("a&amp;b  c , d www.e.org", "ann@f.org 555-0123", "so?", "Hi [name]")
    log = StepLog()
    cleaned = apply_steps(said, Cleaning(), log)
    assert isinstance(cleaned, Cleaned)
    assert [turn["content"] for turn in cleaned.messages] == [
        "a&b c, d this link",
        "this email address this phone number",
        "so?",
        "Hi [name]",
    ]
    assert cleaned.muted == [3]
    steps = ("html", "unicode", "urls", "emails", "phones", "detokenize", "placeholders")
    assert log.counts == dict.fromkeys(steps, 1)
    assert log.examples["emails"] == [
        {"before": "ann@f.org 555-0123", "after": "this email address 555-0123"}
    ]
    log = StepLog()
    untouched = apply_steps(said, Cleaning(**dict.fromkeys(steps, False)), log)
    assert isinstance(untouched, Cleaned)
    assert untouched.messages == said
    assert untouched.muted == []
    assert not log.counts
    assert untouched.origin == cleaned.origin


def test_ten_examples_of_300_characters_are_kept() -> None:
    log, more = StepLog(), StepLog()
    for number in range(7):
        log.add("html", f"{number}" * 400)
        more.add("html", f"more {number}")
    log.update(more)
    assert log.counts["html"] == 14
    shown = [example["before"] for example in log.examples["html"]]
    assert shown == [*(f"{n}" * 300 for n in range(7)), "more 0", "more 1", "more 2"]


def test_replies_that_are_not_learned() -> None:
    said = exchange("hi", "damn, hello there", "so", "ok", "what", "one two three four five")
    log = StepLog()
    cleaned = apply_steps(said, Cleaning(profanity=True, max_reply_words=4), log)
    assert isinstance(cleaned, Cleaned)
    assert cleaned.messages == said
    assert cleaned.muted == [1, 5]
    assert log.counts == {"profanity": 1, "max_reply_words": 1}
    assert apply_steps(said, Cleaning(max_reply_words=1), StepLog()) != DropReason.NO_REPLY
    assert apply_steps(said[:2], Cleaning(max_reply_words=2), StepLog()) is DropReason.NO_REPLY


def test_other_voices_are_read_and_not_learned() -> None:
    said = exchange("who are you?", "My name is Tom.", "oh", "my name? what about it?")
    log = StepLog()
    cleaned = apply_steps(said, Cleaning(mute=(r"\bmy name (?!is wren)", "")), log)
    assert isinstance(cleaned, Cleaned)
    assert (cleaned.messages, cleaned.muted) == (said, [1])
    assert log.examples["mute"] == [{"before": "My name is Tom.", "after": ""}]


def test_other_languages_are_dropped() -> None:
    said = exchange("Wo wohnst du denn jetzt?", "Ich wohne in einer kleinen Stadt am Meer.")
    assert apply_steps(said, Cleaning(languages=("en",)), StepLog()) is DropReason.LANGUAGE
    assert isinstance(apply_steps(said, Cleaning(languages=("de",)), StepLog()), Cleaned)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"html": "no"}, "clean.html='no': allowed is true, false"),
        ({"languages": "en"}, "clean.languages='en': allowed is a list of codes"),
        ({"languages": ["English"]}, "allowed is a list of codes"),
        ({"max_reply_count": 0}, "clean.max_reply_count=0: allowed is a number above 0"),
        ({"max_reply_count": 1.5}, "clean.max_reply_count=1.5: allowed is a number above 0"),
        ({"max_reply_words": True}, "clean.max_reply_words=True"),
        ({"mute": "one"}, "clean.mute='one': allowed is a list of lines"),
        ({"both_sides": "people"}, "clean.both_sides=.people.: allowed is a list"),
        ({"mute": ["a", "b++c**"]}, "clean.mute=.*multiple repeat"),
        ({"htlm": True}, "htlm"),
    ],
)
def test_wrong_switches_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cleaning.of(given)
