"""A session with an engine says what one by itself would, and shows as much of it."""

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pytest
from chat_helpers import NEVER, make_chatbot

from chatbot.chat import ChatSession, Reply
from chatbot.presets import GenerationPreset
from chatbot.serving.engine import Engine
from chatbot.serving.session import EngineSession

GREEDY = GenerationPreset(max_new_tokens=12, no_repeat_ngram_size=2)
PRESETS = [
    GREEDY,
    GenerationPreset(num_beams=3, max_new_tokens=8),
    GenerationPreset(temperature=0.9, num_candidates=3, context_weight=0.4, max_new_tokens=8),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with closing(Engine(*make_chatbot(NEVER), 3)) as engine:
        yield engine


def pair(engine: Engine, preset: GenerationPreset) -> list[ChatSession]:
    alone = ChatSession(engine.model, engine.tokenizer, preset, seed=1)
    return [alone, EngineSession(engine, preset, seed=1)]


def streamed(session: ChatSession, text: str, begin: str = "") -> tuple[list[str], Reply]:
    shown, stream = [], session.stream(text, begin=begin)
    while True:
        try:
            shown.append(next(stream))
        except StopIteration as end:
            return shown, end.value


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: f"{preset.num_compared}")
def test_replies_are_the_same(engine: Engine, preset: GenerationPreset) -> None:
    alone, among = (
        [session.reply(m) for m in ("hello!", "why?")] for session in pair(engine, preset)
    )
    for one, other in zip(alone, among, strict=True):
        assert (one.text, one.candidates, one.tokens) == (
            other.text,
            other.candidates,
            other.tokens,
        )
        assert one.scores == pytest.approx(other.scores, abs=1e-4)
        assert one.timing.tokens == other.timing.tokens


@pytest.mark.parametrize("begin", ["", "well, the"])
def test_streams_grow_to_the_same_reply(engine: Engine, begin: str) -> None:
    found = [streamed(session, "tell me more", begin) for session in pair(engine, GREEDY)]
    (_, one), (shown, other) = found
    assert (one.text, one.token_ids, one.source_ids) == (
        other.text,
        other.token_ids,
        other.source_ids,
    )
    assert one.attention is not None
    assert one.attention.allclose(other.attention, atol=1e-5)
    assert shown[-1] == other.text
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown))
    assert other.timing.tokens == GREEDY.max_new_tokens
    assert 0 < other.timing.first_token <= other.timing.total


def test_a_seed_gives_the_same_reply_whoever_else_talks(engine: Engine) -> None:
    drawn = GenerationPreset(temperature=1.0, max_new_tokens=12)

    def last_reply() -> str:
        session = EngineSession(engine, drawn, seed=7)
        return [streamed(session, message)[1].text for message in ("hello!", "why?")][-1]

    others = [engine.submit([6, 7], drawn, seed) for seed in range(2)]
    crowd = last_reply()
    del others
    assert crowd == last_reply()
    assert crowd != streamed(EngineSession(engine, drawn, seed=8), "hello!")[1].text


def test_what_does_not_fit_a_slot_is_said_all_the_same(engine: Engine) -> None:
    longest = GenerationPreset(max_new_tokens=512)
    _, reply = streamed(EngineSession(engine, longest), "hello!", "well, the")
    assert reply.timing.tokens == 512
    assert reply.text.startswith("Well, the")


def test_a_stopped_reply_keeps_its_words(engine: Engine) -> None:
    session = EngineSession(engine, GenerationPreset(max_new_tokens=512, min_new_tokens=512))
    stream = session.stream("hello!")
    shown = next(stream)
    stream.close()
    assert session.messages[-1]["content"].startswith(shown)
    assert len(session.messages) == 2
