"""The handlers of the chat page, without the page."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from waiting import wait_until

from chatbot.app import conversation, strings
from chatbot.app.conversation import Bot, Choice, View, read_history
from chatbot.chat import MAX_MESSAGE_CHARACTERS, ChatSession
from chatbot.presets import GenerationPreset, generation_preset
from chatbot.serving.engine import EngineFullError

PRESET = Choice(GenerationPreset(temperature=0.9, max_new_tokens=8))
BEAMS = Choice(GenerationPreset(num_beams=3, max_new_tokens=6))


def on_page(*texts: str) -> list[dict[str, Any]]:
    """A conversation as the page sends it, the user speaking first."""
    roles = ["user", "assistant"] * len(texts)
    return [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]


def said(view: View) -> list[str]:
    """The texts of a view."""
    return [message["content"] for message in view.history or []]


def test_history_holds_text_or_parts() -> None:
    history = [
        {"role": "user", "content": "&lt;"},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"file": {"path": "x"}}]},
    ]
    texts = [message["content"] for message in read_history(history)]
    assert texts == ["&lt;", "a"]


@pytest.mark.parametrize(
    "history",
    ["text", 5, [5], ["hi"], [{"role": "system", "content": "x"}], [{"role": "user"}], [{}]],
)
def test_a_history_that_is_none_is_refused(history: object) -> None:
    with pytest.raises(ValueError, match="history: allowed is a list"):
        read_history(history)


def test_half_a_character_is_replaced() -> None:
    (message,) = read_history([{"role": "user", "content": "a\ud800"}])
    message["content"].encode("utf-8")


def test_a_reply_streams(bot: Bot) -> None:
    # draws are free: few words would be few views
    wordy = Choice(GenerationPreset(temperature=0.9, min_new_tokens=24, max_new_tokens=24))
    views = list(conversation.send(bot, "hi <b>", [], wordy))
    assert said(views[0]) == ["hi <b>"]
    assert views[0].box == ""
    assert all(view.running for view in views[:-1])
    assert len(views) > 3
    assert len(said(views[-1])) == 2
    assert "tokens" in views[-1].status
    assert (views[-1].inspection or {})["text"] == said(views[-1])[1]
    assert not views[-1].running


def test_what_was_said_before_is_read(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []

    def stream(session: ChatSession, text: str, **options: Any) -> Iterator[str]:
        read.append([m["content"] for m in session.messages])
        return original(session, text, **options)

    original = ChatSession.stream
    monkeypatch.setattr(ChatSession, "stream", stream)
    list(conversation.send(bot, "c", on_page("<a> &lt; \x00", "b"), PRESET))
    assert read == [["<a> &lt;", "b"]]


@pytest.mark.parametrize("text", ["", "  \n\t ", "\x00\x01", "\u200b\u202e"])
def test_a_blank_message_makes_no_turn(bot: Bot, text: str) -> None:
    (view,) = conversation.send(bot, text, on_page("a", "b"), PRESET)
    assert view == View(status=strings.BLANK)


def test_a_long_message_is_cut_with_a_note(bot: Bot) -> None:
    *_, view = conversation.send(bot, "x" * 100_000 + "end", [], PRESET)
    assert len(said(view)[0]) == MAX_MESSAGE_CHARACTERS
    assert said(view)[0].endswith("xend")
    assert "10,000" in view.status


def test_beams_come_at_once_with_all_candidates(bot: Bot) -> None:
    first, last = conversation.send(bot, "hello", [], BEAMS)
    assert first.running
    assert len((last.inspection or {})["candidates"]) == 3


@pytest.mark.parametrize("choice", [PRESET, BEAMS])
def test_an_unsure_reply_is_shown_as_the_fallback_alone(bot: Bot, choice: Choice) -> None:
    unsure = replace(bot, min_confidence=1.0, fallback="Ask <my> boss.")
    *early, last = conversation.send(unsure, "hello", [], choice)
    assert said(last) == ["hello", "Ask <my> boss."]
    assert {text for view in early for text in said(view)[1:]} <= {"Ask <my> boss."}
    assert (last.inspection or {})["instead"]  # what it would have said can be looked into
    assert list(conversation.answer(unsure, "hi", None, None)) == ["Ask <my> boss."] * 2


@pytest.mark.parametrize("least", [-1.0, 2.0])
def test_a_confidence_that_is_none_is_refused_at_once(bot: Bot, least: float) -> None:
    with pytest.raises(ValueError, match=r"min_confidence=.* allowed: 0 to 1"):
        replace(bot, min_confidence=least)


def test_stopping_ends_the_model_and_keeps_the_words(bot: Bot) -> None:
    steps, held, go_on = [0], threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        """At its 64th step the model waits: however fast, it cannot finish first."""
        steps[0] += 1
        if steps[0] == 64:
            held.set()
            go_on.wait(60)

    hook = bot.model.lm_head.register_forward_pre_hook(hold)
    endless = Choice(GenerationPreset(min_new_tokens=512, max_new_tokens=512))
    views = conversation.send(bot, "hello", [], endless)
    next(views)
    view = next(views)
    assert len(said(view)) == 2
    assert held.wait(60)
    views.close()
    go_on.set()
    wait_until(lambda: bot.engine.load == (0, 0))
    hook.remove()
    assert steps[0] <= 66  # the step that it was at, and the look at what was said
    stopped = conversation.stop(view.history)
    assert stopped.history == view.history
    assert stopped.status == strings.STOPPED


def test_stopping_before_the_first_word_gives_the_message_back() -> None:
    view = conversation.stop(on_page("a", "b", "c <i>"))
    assert said(view) == ["a", "b"]
    assert view.box == "c <i>"


def test_retry_answers_the_last_message_again(bot: Bot) -> None:
    history = on_page("a", "b", "c", "old")
    replies = set()
    for _ in range(5):
        views = list(conversation.retry(bot, history, PRESET))
        assert all(view.box is None for view in views)
        assert said(views[0]) == ["a", "b", "c"]
        *rest, reply = said(views[-1])
        assert rest == ["a", "b", "c"]
        replies.add(reply)
    assert len(replies) > 1


def test_retry_after_a_failure_answers_the_message(bot: Bot) -> None:
    *_, view = conversation.retry(bot, on_page("a"), PRESET)
    assert len(said(view)) == 2


def test_another_word_begins_another_reply(bot: Bot) -> None:
    talk = [*on_page("hi", "no", "and you?", "Fine.", "oh"), {"role": "assistant", "content": "x"}]
    seeded = Choice(GenerationPreset(temperature=0.9, max_new_tokens=12), seed=3)
    *_, first = conversation.retry(bot, talk[:4], seeded)
    look = first.inspection or {}
    word = next(w for w, (_, spot, _) in enumerate(look["words"]) if spot and w)
    rivals = [added for _, _, added in look["alternatives"][word] if added]
    assert len(rivals) > 2
    for added in rivals:
        begin = look["text"][: look["words"][word][2]] + added
        *early, last = conversation.branch(bot, 3, begin, talk, seeded)
        assert said(last)[:3] == ["hi", "no", "and you?"]
        assert len(said(last)) == 4  # what came after is dropped
        assert said(last)[3].lower().startswith(begin.lower())
        assert len(said(last)[3]) > len(begin)
        assert said(early[0])[3].lower() == begin.lower()


@pytest.mark.parametrize("index", [None, -1, 0, 2, 4, "1", 1.0])
def test_only_a_reply_can_begin_otherwise(bot: Bot, index: object) -> None:
    (view,) = conversation.branch(bot, index, "a", on_page("a", "b", "c", "d"), PRESET)
    assert view == View(status=strings.NOTHING_TO_CONTINUE)
    (view,) = conversation.branch(bot, 1, "", on_page("a", "b"), PRESET)
    assert view == View(status=strings.NOTHING_TO_CONTINUE)


def test_nothing_to_retry_or_to_go_on_with(bot: Bot) -> None:
    assert list(conversation.retry(bot, [], PRESET)) == [View(status=strings.NOTHING_TO_RETRY)]
    assert list(conversation.go_on(bot, [], PRESET)) == [View(status=strings.NOTHING_TO_CONTINUE)]


def test_a_conversation_is_cut_where_it_is_edited(bot: Bot) -> None:
    views = list(conversation.edit(bot, 2, "<new>", on_page("a", "b", "c", "d", "e"), PRESET))
    assert said(views[0]) == ["a", "b", "<new>"]
    assert len(said(views[-1])) == 4
    assert {view.box for view in views} == {None}


@pytest.mark.parametrize("index", [-1, 2, "0", None])
def test_what_is_not_there_is_not_edited(bot: Bot, index: object) -> None:
    views = list(conversation.edit(bot, index, "new", on_page("a", "b"), PRESET))
    assert views == [View(status=strings.NOTHING_TO_EDIT)]


@pytest.mark.parametrize("choice", [PRESET, BEAMS])
def test_a_reply_goes_on_where_it_ended(bot: Bot, choice: Choice) -> None:
    """What was said before it is read, and it stays as it was."""
    views = list(conversation.go_on(bot, on_page("a", "b", "hi there", "What do you"), choice))
    for view in views:
        assert said(view)[:3] == ["a", "b", "hi there"]
        assert said(view)[3].startswith("What do you")
    assert len(said(views[-1])[3]) > len("What do you")
    assert views[-1].status.startswith(tuple(f"{n} tokens" for n in range(4, 9)))


def test_a_message_without_a_reply_is_answered_when_it_goes_on(bot: Bot) -> None:
    *_, view = conversation.go_on(bot, on_page("a"), PRESET)
    assert len(said(view)) == 2


def test_a_seed_repeats_a_reply(bot: Bot) -> None:
    def reply(seed: int | None) -> str:
        *_, view = conversation.retry(bot, on_page("a"), replace(PRESET, seed=seed))
        return said(view)[1]

    assert reply(1) == reply(1)
    assert len({reply(seed) for seed in range(5)}) > 1


def test_a_failure_is_a_sentence(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Iterator[str]:
        yield "half"
        raise RuntimeError("inner workings")

    monkeypatch.setattr(ChatSession, "stream", fail)
    *_, view = conversation.send(bot, "hi", [], PRESET)
    assert view.status == strings.FAILED
    assert said(view) == ["hi", "half"]
    assert not view.running


def test_a_full_engine_leaves_what_was_said(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **options: object) -> None:
        raise EngineFullError("full")

    monkeypatch.setattr(bot.engine, "submit", full)
    *_, view = conversation.go_on(bot, on_page("hi", "Hello, I"), PRESET)
    assert (said(view), view.status) == (["hi", "Hello, I"], strings.BUSY)


def test_a_reply_longer_than_any_does_not_go_on(bot: Bot) -> None:
    (view,) = conversation.go_on(bot, on_page("hi", "a" * 10_001), PRESET)
    assert (view.history, view.status) == (None, strings.FULL)


def test_sliders_count_for_ones_own_preset_alone() -> None:
    own = conversation.choose_preset(strings.MY_OWN, 0.2, 0.5, 12, 1, 7)
    assert (own.preset.temperature, own.preset.top_p, own.preset.max_new_tokens) == (0.2, 0.5, 12)
    assert own.seed == 7
    named = conversation.choose_preset("lively", 0.2, 0.5, 12, 9, 7)
    assert named == Choice(generation_preset("lively"))


def test_with_beams_nothing_is_drawn() -> None:
    own = conversation.choose_preset(strings.MY_OWN, 0.2, 0.5, 12, 9)
    assert (own.preset.temperature, own.preset.num_beams) == (0.0, 9)


@pytest.mark.parametrize(
    "values",
    [
        ("nope",),
        (strings.MY_OWN, -1.0),
        (strings.MY_OWN, 0, 1, 10, 1000),
        (strings.MY_OWN, 0, 1, 10, 1, -1),
    ],
)
def test_settings_out_of_range_are_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        conversation.choose_preset(*values)


@pytest.mark.parametrize("preset", [None, "greedy", "precise"])
def test_programs_get_plain_text(bot: Bot, preset: str | None) -> None:
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    *_, last = conversation.answer(bot, "hello <b>", history, preset)
    assert last


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((5, None, None), "message: must be text"),
        (("hi", "x", None), "history: allowed"),
        (("hi", None, "x"), "allowed: lively"),
    ],
)
def test_programs_are_told_what_is_wrong(
    bot: Bot, arguments: tuple[Any, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(conversation.answer(bot, *arguments))
