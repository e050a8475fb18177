"""A conversation that is read on equals one that is read again."""

from typing import Any

import pytest
import torch
from chat_helpers import make_chatbot
from torch import Tensor

from chatbot.incremental import SNAPSHOTS, ConversationReader, read_on
from chatbot.modeling import quantize
from chatbot.modeling.modeling_rnn_seq2seq import RnnSeq2SeqEncoderOutput
from chatbot.tokenization import encode_context

VARIANTS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {"cell_type": "gru"},
    "deep": {"encoder_layers": 2, "decoder_layers": 2, "residual": True, "layer_norm": True},
    "copying": {"copy": True},
    "int8": {"int8": True},
    "no attention": {"attention": "none"},
}


def talk(*texts: str) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


LINES = ("hi there", "hello! how are you?", "my dog is ill", "oh no. what has he got?", "a cold")


def parts(read: RnnSeq2SeqEncoderOutput) -> tuple[Tensor, Tensor, Tensor]:
    return read.last_hidden_state, read.final_hidden, read.final_cell


def assert_same(read: RnnSeq2SeqEncoderOutput, again: RnnSeq2SeqEncoderOutput) -> None:
    for one, other in zip(parts(read), parts(again), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def read_whole(chatbot: Any, messages: list[dict[str, Any]]) -> RnnSeq2SeqEncoderOutput:
    model, tokenizer = chatbot
    with torch.inference_mode():
        return model.model.encoder(torch.tensor([encode_context(tokenizer, messages, 96)]))


@pytest.fixture(scope="module", params=VARIANTS)
def chatbot(request: pytest.FixtureRequest) -> Any:
    settings = dict(VARIANTS[request.param])
    in_int8 = settings.pop("int8", False)
    model, tokenizer = make_chatbot(bidirectional=False, **settings)
    return quantize(model) if in_int8 else model, tokenizer


@torch.inference_mode()
def test_tokens_are_read_in_any_pieces(chatbot: Any) -> None:
    model, tokens = chatbot[0], list(range(270, 290))
    whole = model.model.encoder(torch.tensor([tokens]))
    read = None
    for start, end in ((0, 1), (1, 8), (8, 9), (9, 20)):
        read = read_on(model, tokens[start:end], read)
    assert_same(read, whole)
    assert read.source_ids.tolist() == [tokens]
    last = read_on(model, tokens[12:], read_on(model, tokens[:12], longest=3), longest=5)
    torch.testing.assert_close(last.last_hidden_state, whole.last_hidden_state[:, -5:])
    assert last.source_ids.tolist() == [tokens[-5:]]


@pytest.mark.parametrize("carry", [True, False])
def test_a_growing_conversation_equals_one_read_again(chatbot: Any, carry: bool) -> None:
    reader = ConversationReader(*chatbot, longest=96, carry=carry)
    for count in (1, 3, 5):
        read = reader.read(talk(*LINES[:count]))
        assert_same(read, read_whole(chatbot, talk(*LINES[:count])))
        assert read.source_ids[0].tolist() == encode_context(chatbot[1], talk(*LINES[:count]), 96)


def test_after_undo_edit_and_retry_too(chatbot: Any) -> None:
    reader = ConversationReader(*chatbot, longest=96, carry=True)
    for count in (1, 3, 5, 5, 3, 5):
        reader.read(talk(*LINES[:count]))
    edited = talk(*LINES[:2], "my cat is ill", "poor cat!", "yes")
    assert_same(reader.read(edited), read_whole(chatbot, edited))
    other = talk("good morning")
    assert_same(reader.read(other), read_whole(chatbot, other))


def counted(reader: ConversationReader, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of the encoder's layers reads."""
    stack, seen = reader.model.model.encoder.stack, []
    forward = type(stack).forward

    def counting(self: Any, inputs: Tensor, *rest: Any) -> Any:
        if self is stack:
            seen.append(inputs.shape[1])
        return forward(self, inputs, *rest)

    monkeypatch.setattr(type(stack), "forward", counting)
    return seen


def test_only_what_is_new_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ConversationReader(*make_chatbot(bidirectional=False), longest=96, carry=True)
    reader.read(talk(*LINES[:3]))
    seen = counted(reader, monkeypatch)
    reader.read(talk(*LINES[:3]))  # a retry
    assert seen == [1]
    reader.read(talk(*LINES))
    earlier, all_of_it = (encode_context(reader.tokenizer, talk(*LINES[:n]), 96) for n in (3, 5))
    assert seen[1:] == [len(all_of_it) - len(earlier), 1]
    reader.read(talk(*LINES[:3]))  # undone
    assert seen[3:] == [1]


@torch.inference_mode()
def test_past_the_longest_the_state_goes_on_or_turns_are_cut() -> None:
    model, tokenizer = chatbot = make_chatbot(bidirectional=False)
    whole = read_whole(chatbot, talk(*LINES))
    carried = ConversationReader(*chatbot, longest=20, carry=True)
    cut = ConversationReader(*chatbot, longest=20, carry=False)
    for count in (1, 3, 5):
        on, again = (reader.read(talk(*LINES[:count])) for reader in (carried, cut))
    torch.testing.assert_close(on.last_hidden_state, whole.last_hidden_state[:, -20:])
    torch.testing.assert_close(on.final_hidden, whole.final_hidden)
    tokens = encode_context(tokenizer, talk(*LINES), 20)
    assert again.source_ids.tolist() == [tokens]
    assert_same(again, model.model.encoder(torch.tensor([tokens])))


def test_a_long_conversation_takes_no_more_memory() -> None:
    reader = ConversationReader(*make_chatbot(bidirectional=False), longest=24, carry=True)
    messages = talk("hello")
    for _ in range(3 * SNAPSHOTS):
        read = reader.read(messages)
        assert read.last_hidden_state.shape[1] <= 24
        messages = [*messages, *talk("hello", "and again hello")[::-1]]
    assert len(reader.snapshots) == SNAPSHOTS
    for snapshot in reader.snapshots:
        storage = snapshot.read.last_hidden_state.untyped_storage()
        assert storage.nbytes() <= 2 * 24 * 16 * 4


def test_two_directions_read_all_again() -> None:
    model, _ = chatbot = make_chatbot(bidirectional=True)
    reader = ConversationReader(*chatbot, longest=96, carry=True)
    for count in (1, 3):
        assert_same(reader.read(talk(*LINES[:count])), read_whole(chatbot, talk(*LINES[:count])))
    with pytest.raises(ValueError, match="bidirectional=True cannot read on; allowed: a unidir"):
        read_on(model, [270])
