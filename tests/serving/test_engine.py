"""The engine: a crowd gets what each would get alone, and nobody is kept waiting for nothing."""

from collections.abc import Iterator
from contextlib import closing
from queue import SimpleQueue
from random import Random

import pytest
import torch
from chat_helpers import NEVER, Chatbot, make_chatbot
from modeling_helpers import Settings, name_of
from torch import Tensor

from chatbot.decoding import generate, spoken_tokens
from chatbot.modeling.quantization_rnn_seq2seq import quantize
from chatbot.presets import GenerationPreset
from chatbot.serving.engine import Engine, EngineFullError
from chatbot.serving.slots import Request, Slots, draw

KINDS: list[Settings] = [
    {"attention": "none"},
    {"attention": "dot", "attention_window": "local-m", "input_feeding": True},
    {"cell_type": "gru", "attention": "concat", "attention_window": "local-p"},
    {"attention": "additive", "attention_window": "recent", "bidirectional": True},
    {"cell_type": "gru", "attention": "general", "copy": True, "layer_norm": True},
]
GREEDY = GenerationPreset(max_new_tokens=12)
PRESETS = [
    GREEDY,
    GenerationPreset(no_repeat_ngram_size=0, min_new_tokens=0, max_new_tokens=20),
    GenerationPreset(no_repeat_ngram_size=1, min_new_tokens=5, max_new_tokens=15),
    GenerationPreset(temperature=0.7, top_p=0.9, max_new_tokens=20),
    GenerationPreset(temperature=1.5, top_k=40, no_repeat_ngram_size=2, max_new_tokens=20),
]
ENDLESS = GenerationPreset(max_new_tokens=512, min_new_tokens=512)
Asked = list[tuple[list[int], GenerationPreset, int]]


@pytest.fixture(scope="module", params=KINDS, ids=name_of)
def chatbot(request: pytest.FixtureRequest) -> Chatbot:
    return make_chatbot(1.0, max_source_positions=20, **request.param)


@pytest.fixture
def endless() -> Iterator[Engine]:
    """Two slots, room for two more, and replies that do not end by themselves."""
    with closing(Engine(*make_chatbot(NEVER, max_source_positions=20), 2, 2)) as engine:
        yield engine


def crowd_of(words: int, count: int = 20) -> Asked:
    """Contexts of many lengths, with presets and seeds of their own."""
    draw = Random(0)
    lengths = [draw.randint(1, 20) for _ in range(count)]
    contexts = [[draw.randrange(6, words) for _ in range(length)] for length in lengths]
    return [(context, PRESETS[i % len(PRESETS)], i) for i, context in enumerate(contexts)]


def replies_of(chatbot: Chatbot, asked: Asked, slots: int) -> list[list[int]]:
    with closing(Engine(*chatbot, slots)) as engine:
        return [list(handle) for handle in [engine.submit(*one) for one in asked]]


@pytest.mark.parametrize("int8", [False, True])
def test_each_gets_in_a_crowd_what_it_gets_alone(chatbot: Chatbot, int8: bool) -> None:
    """Seven slots for twenty: all join and leave at different steps."""
    model, tokenizer = (quantize(chatbot[0]) if int8 else chatbot[0]), chatbot[1]
    asked = crowd_of(len(tokenizer))
    crowd = replies_of((model, tokenizer), asked, 7)
    assert crowd == replies_of((model, tokenizer), asked, 1)
    assert len({len(reply) for reply in crowd}) > 2  # they did not march in step
    for (context, preset, _), reply in zip(asked, crowd, strict=True):
        if not preset.temperature:
            found = generate(model, tokenizer, [context], preset, torch.Generator())
            assert reply == spoken_tokens(tokenizer, found.sequences[0].tolist())


def test_a_reply_goes_on_from_its_beginning(chatbot: Chatbot) -> None:
    """Among others, which it does not change, and as `generate` lets it go on."""
    model, tokenizer = chatbot
    words, begin = len(tokenizer), [70, 300, 71, 300, 72]
    crowd = crowd_of(words, 6)
    with closing(Engine(model, tokenizer, 8)) as engine:
        others = [engine.submit(*one) for one in crowd]
        begun = [engine.submit(*one, begin=begin) for one in crowd]
        found, replies = [list(handle) for handle in others], [list(handle) for handle in begun]
    assert found == replies_of(chatbot, crowd, 1)
    for (context, preset, _), reply in zip(crowd, replies, strict=True):
        assert reply[:5] == begin
        ended = reply[-1] == tokenizer.eos_token_id
        assert len(reply) - 5 == preset.max_new_tokens or ended
        if not preset.temperature:
            options = {"begin": begin}
            one = generate(model, tokenizer, [context], preset, torch.Generator(), **options)
            assert reply == spoken_tokens(tokenizer, one.sequences[0].tolist())


class Recorded(Slots):
    """Slots that keep the scores of each row at each step."""

    seen: list[Tensor] = []

    def _choose(self, scores: Tensor) -> Tensor:
        self.seen = [*self.seen, scores.clone()]
        return super()._choose(scores)


@torch.inference_mode()
@pytest.mark.parametrize("int8", [False, True])
def test_scores_are_those_of_a_lone_run(chatbot: Chatbot, int8: bool) -> None:
    """The first row walks beside three others, one of which leaves half way; then alone."""
    model, tokenizer = (quantize(chatbot[0]) if int8 else chatbot[0]), chatbot[1]
    contexts = [context for context, _, _ in crowd_of(len(tokenizer), 4)]
    runs = []
    for company in (contexts, contexts[:1]):
        slots = Recorded(model, tokenizer, 5, 20)
        slots.join([Request(c, GREEDY, torch.Generator(), print) for c in company])
        for step in range(8):
            if step == 4 and len(company) > 1:
                slots.leave([1])
            slots.step()
        runs.append(torch.stack([scores[0] for scores in slots.seen]))
    if int8:
        assert torch.equal(*runs)
    else:
        torch.testing.assert_close(*runs, rtol=0, atol=1e-5)


def test_state_belongs_to_the_engine(tiny_chatbot: Chatbot) -> None:
    before = {name: id(value) for name, value in vars(tiny_chatbot[0].model.decoder).items()}
    asked = crowd_of(len(tiny_chatbot[1]), 4)
    assert replies_of(tiny_chatbot, asked, 2) == replies_of(tiny_chatbot, asked, 3)
    assert {name: id(v) for name, v in vars(tiny_chatbot[0].model.decoder).items()} == before


def test_beams_are_searched_beside_the_slots(tiny_chatbot: Chatbot) -> None:
    preset = GenerationPreset(num_beams=3, max_new_tokens=8)
    context = crowd_of(len(tiny_chatbot[1]), 1)[0][0]
    found = generate(*tiny_chatbot, [context], preset, torch.Generator())
    expected = spoken_tokens(tiny_chatbot[1], found.sequences[0].tolist())
    assert replies_of(tiny_chatbot, [(context, preset, 0)], 1) == [expected]


def test_draws_follow_the_settings() -> None:
    likelihood = torch.tensor([[0.1, 0.4, 0.05, 0.3, 0.15]]).expand(1000, 5)
    noise = ((torch.arange(1000) + 0.5) / 1000)[:, None]

    def shares(mass: float, among: int, size: int) -> list[float]:
        settings = torch.full((1000, 1), mass), torch.full((1000, 1), among)
        counts = draw(likelihood, noise, *settings, size).flatten().bincount(minlength=5)
        return (counts / 1000).tolist()

    for size in (1, 2, 5):  # looking at more first, or only where it is needed, is the same
        assert shares(1.0, 9, size) == pytest.approx([0.1, 0.4, 0.05, 0.3, 0.15], abs=1e-3)
        assert shares(0.6, 9, size) == pytest.approx([0, 4 / 7, 0, 3 / 7, 0], abs=1e-3)
        assert shares(1.0, 3, size) == pytest.approx([0, 8 / 17, 0, 6 / 17, 3 / 17], abs=2e-3)
        assert shares(0.45, 3, size) == pytest.approx([0, 1, 0, 0, 0])  # 0.4 / 0.85 > 0.45


def test_a_full_engine_refuses(endless: Engine) -> None:
    running = [endless.submit([6, 7], ENDLESS) for _ in range(2)]
    streams = [iter(handle) for handle in running]
    for stream in streams:
        next(stream)
    waiting = [endless.submit([6], GREEDY) for _ in range(2)]
    with pytest.raises(EngineFullError, match="2 requests wait"):
        endless.submit([6], GREEDY)
    running[0].stop()
    assert [len(list(handle)) for handle in waiting] == [12, 12]
    assert len(list(streams[0])) < 511
    endless.submit([6], GREEDY)


def test_who_is_gone_leaves_the_slot(endless: Engine) -> None:
    stream = iter(endless.submit([6], ENDLESS))
    next(stream)
    stream.close()
    events: SimpleQueue[object] = SimpleQueue()
    dropped = endless.submit([6], ENDLESS, 0, events.put)
    events.get()
    del dropped

    def broken(event: object) -> None:
        raise RuntimeError("no loop")

    kept = endless.submit([6], ENDLESS, 0, broken)
    for _ in range(3):
        list(endless.submit([6], GREEDY))
    rest = list(iter(events.get, None))
    assert len(rest) < 511
    assert kept._request.stopped


def test_nothing_is_left_of_a_conversation(endless: Engine) -> None:
    for handle in [endless.submit([6, 7, 8], GREEDY) for _ in range(2)]:
        list(handle)
    endless.close()
    assert not any(tensor.any() for tensor in endless._slots.tensors.values())
    assert endless._slots.requests == endless._joining == []


def test_an_error_reaches_all_and_ends_nothing(
    endless: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [iter(endless.submit([6], ENDLESS)) for _ in range(2)]
    for stream in streams:
        next(stream)
    with monkeypatch.context() as patch:
        patch.setattr(endless._slots, "weights", None)
        for stream in streams:
            with pytest.raises(TypeError):
                list(stream)
    assert len(list(endless.submit([6], GREEDY))) == 12


def test_a_closed_engine_says_so(endless: Engine) -> None:
    handles = [endless.submit([6], ENDLESS) for _ in range(2)]
    endless.close()
    for handle in handles:
        with pytest.raises(RuntimeError, match="closed"):
            list(handle)
    with pytest.raises(RuntimeError, match="closed"):
        endless.submit([6], GREEDY)


@pytest.mark.parametrize("context", [[], [6] * 21, [-1], [600]])
def test_impossible_contexts_are_refused(endless: Engine, context: list[int]) -> None:
    with pytest.raises(ValueError, match="context"):
        endless.submit(context, GREEDY)


def test_a_beginning_that_fills_the_slot_is_refused(endless: Engine) -> None:
    with pytest.raises(ValueError, match="begin of 501 tokens: allowed are 0 to 500"):
        endless.submit([6], GREEDY, begin=[6] * 501)
    assert len(list(endless.submit([6], GREEDY, begin=[6] * 500))) == 512


def test_what_is_computed_beside_comes_back(endless: Engine) -> None:
    assert endless.compute(max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        endless.compute(divmod, 1, 0)
    assert endless.load == (0, 0)


def test_memory_of_a_slot_by_hand() -> None:
    """Without attention: a state of two layers, 513 tokens, 512 draws, six settings, a count."""
    with closing(Engine(*make_chatbot(attention="none"), 3)) as engine:
        assert engine.bytes_per_slot == 4 * 2 * 2 * 16 + 8 * 513 + 4 * 512 + 4 * 6 + 8
