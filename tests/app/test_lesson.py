"""The numbers of the page "How it works": the model's own, and what a change makes of them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from chat_helpers import make_chatbot, make_fixed_chatbot
from modeling_helpers import name_of, variants
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from chatbot.app import strings
from chatbot.app.lesson import MAX_REPLY_TOKENS, Change, Subject, decode, lesson_function
from chatbot.decoding import generate, spoken_tokens
from chatbot.modeling.attention_rnn_seq2seq import Attention
from chatbot.modeling.quantization_rnn_seq2seq import quantize
from chatbot.presets import generation_preset
from chatbot.tokenization import encode_context, encode_turn

TEXT, REPLY = "which sport do you like the most?", "i love cricket"
Look = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def make_subject(**settings: Any) -> Subject:
    model, tokenizer = make_chatbot(**settings)
    return Subject(model, tokenizer, tokenizer)


def source_of(subject: Subject) -> list[int]:
    return encode_context(subject.tokenizer, [{"role": "user", "content": TEXT}], 96)


def reply_of(subject: Subject) -> list[int]:
    return encode_turn(subject.tokenizer, "assistant", REPLY)[1:]


def encode(subject: Subject) -> Any:
    tokens = torch.tensor([source_of(subject)])
    return subject.model.model.encoder(tokens, output_hidden_states=True)


def forward(subject: Subject) -> Any:
    """The model's own pass over the reply."""
    labels = torch.tensor([reply_of(subject)])
    with torch.inference_mode():
        return subject.model(
            torch.tensor([source_of(subject)]),
            decoder_input_ids=subject.model.prepare_decoder_input_ids_from_labels(labels),
            output_attentions=True,
            output_hidden_states=True,
        )


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)


def stacked(steps: list[Any], name: str) -> Tensor:
    return torch.stack([step[name] for step in steps])


@pytest.mark.parametrize("settings", variants(bidirectional=True), ids=name_of)
def test_the_numbers_are_the_models_own(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject(attention_window_size=2, bridge="linear", **settings)
    encoded, expected = encode(subject), forward(subject)
    tokens, steps = decode(subject, encoded, reply_of(subject))
    assert tokens == reply_of(subject)
    close(stacked(steps, "log_p"), expected.logits[0].log_softmax(-1))
    close(stacked(steps, "state"), expected.decoder_hidden_states[-1][0])
    if settings["attention"] == "none":
        assert "weights" not in steps[0]
        return
    close(stacked(steps, "weights"), expected.cross_attentions[0][0, 0])
    for step in steps:
        close(step["scores"].softmax(0), step["weights"])
        close(step["context"], (step["weights"][:, None] * encoded.last_hidden_state[0]).sum(0))

    place = 1
    position = int(steps[place]["weights"].argmax())
    own = float(steps[place]["weights"][position])
    same = decode(subject, encoded, tokens, Change(False, place, position, own))[1]
    for before, after in zip(steps, same, strict=True):
        close(after["log_p"], before["log_p"])
    other = decode(subject, encoded, tokens, Change(False, place, position, own / 2))[1]
    assert float(other[place]["weights"][position]) == pytest.approx(own / 2)
    assert float(other[place]["weights"].sum()) == pytest.approx(1)
    close(other[0]["log_p"], steps[0]["log_p"])
    look = Attention.forward

    def changed(self: Attention, query: Tensor, memory: Any, at: Tensor) -> tuple[Tensor, Tensor]:
        weights = look(self, query, memory, at)[1].clone()
        for row, step in enumerate(at.tolist()):
            if step == place:
                rest = weights[0, row].clone()
                rest[position] = 0
                weights[0, row] = rest / rest.sum() * (1 - own / 2)
                weights[0, row, position] = own / 2
        return weights @ memory.values, weights

    monkeypatch.setattr(Attention, "forward", changed)
    close(stacked(other, "log_p"), forward(subject).logits[0].log_softmax(-1))

    def blind(self: Attention, query: Tensor, memory: Any, at: Tensor) -> tuple[Tensor, Tensor]:
        context, weights = look(self, query, memory, at)
        return torch.zeros_like(context), torch.zeros_like(weights)

    monkeypatch.setattr(Attention, "forward", blind)
    unseeing = forward(subject).logits[0].log_softmax(-1)
    monkeypatch.undo()
    off = decode(subject, encoded, tokens, Change(off=True))[1]
    close(stacked(off, "log_p"), unseeing)
    assert not stacked(off, "context").any()


def test_an_override_by_hand() -> None:
    """Scores ln 2, ln 3, ln 5 and one out of sight: weights .2, .3, .5, 0."""
    lowest = torch.finfo(torch.float32).min
    scores = torch.tensor([0.6931472, 1.0986123, 1.6094379, lowest])
    found = Change(False, 0, 2, 0.9).weights(scores)
    close(found, torch.tensor([0.04, 0.06, 0.9, 0.0]))
    close(Change(False, 0, 0, 0.0).weights(scores), torch.tensor([0.0, 0.375, 0.625, 0.0]))
    close(Change(False, 0, 0, 1.0).weights(scores), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="out of the window"):
        Change(False, 0, 3, 0.5).weights(scores)
    with pytest.raises(ValueError, match="alone in it"):
        Change(False, 0, 0, 0.5).weights(torch.tensor([1.0, lowest]))


def test_in_int8_too() -> None:
    subject = make_subject()
    subject = Subject(quantize(subject.model), subject.tokenizer, subject.tokenizer)
    steps = decode(subject, encode(subject), reply_of(subject))[1]
    expected = forward(subject)
    close(stacked(steps, "log_p"), expected.logits[0].log_softmax(-1))
    close(stacked(steps, "weights"), expected.cross_attentions[0][0, 0])


def likely_to_end() -> Subject:
    model, tokenizer = make_fixed_chatbot({"<end>": 0.9, "a": 0.1})
    return Subject(model, tokenizer, tokenizer)


@pytest.mark.parametrize("make", [make_subject, likely_to_end])
def test_its_own_reply_is_that_of_greedy_search(make: Callable[[], Subject]) -> None:
    subject = make()
    preset = replace(generation_preset("greedy"), max_new_tokens=MAX_REPLY_TOKENS)
    found = generate(
        subject.model, subject.tokenizer, [source_of(subject)], preset, torch.Generator()
    )
    tokens, steps = decode(subject, encode(subject), None)
    assert tokens == spoken_tokens(subject.tokenizer, found.sequences[0].tolist())
    assert len(steps) == len(tokens)
    assert tokens[-1] == subject.tokenizer.eos_token_id


def ask(subject: Subject, **asked: Any) -> dict[str, Any]:
    with torch.enable_grad():  # as in the server's threads
        return lesson_function({"a": subject})({"model": "a", "text": TEXT, **asked})


def test_what_the_page_is_given() -> None:
    subject = make_subject(copy=True)
    encoded, source = encode(subject), source_of(subject)
    found = ask(subject, reply=REPLY)
    tokens, steps = decode(subject, encoded, reply_of(subject))
    assert [one["id"] for one in found["source"]] == source
    assert found["source"][0]["word"] == "<user>"
    assert [one["id"] for one in found["reply"]] == tokens
    assert found["reply"][-1]["word"] == "<end>"
    assert found["changed"] == []
    assert found["own"] == found["own_changed"] == ask(subject)["own"]
    close(torch.tensor(found["states"]), encoded.last_hidden_state[0, :, :8])
    table = subject.model.get_input_embeddings()
    close(torch.tensor(found["embeddings"]), table(torch.tensor(source))[:, :8])
    assert len(found["fixed"]) == 2  # layers, each with a hidden state and a cell
    close(torch.tensor(found["fixed"][1][0]), encoded.final_hidden[0, 1, :8])
    close(torch.tensor(found["fixed"][1][1]), encoded.final_cell[0, 1, :8])
    assert json.loads(json.dumps(found))["steps"] == [
        {**step, "likeliest": [list(word) for word in step["likeliest"]]} for step in found["steps"]
    ]
    for step, shown, token in zip(steps, found["steps"], tokens, strict=True):
        best = step["log_p"].sort(descending=True)
        words = shown["likeliest"]
        assert [word[1] for word in words[:5]] == pytest.approx(best.values[:5].exp().tolist())
        assert [word[1] for word in words if word[2]] == pytest.approx(
            [float(step["log_p"][token].exp())]
        )
        assert int(best.indices[shown["rank"] - 1]) == token
        assert 0 < shown["gate"] < 1
    assert {step["gate"] for step in ask(subject, change={"off": True})["changed"]} == {1.0}


def test_a_change_and_what_it_changes() -> None:
    subject = make_subject()
    base, changed = ask(subject, reply=REPLY), ask(subject, reply=REPLY, change={"off": True})
    assert changed["own"] == base["own"] != changed["own_changed"]
    assert set(changed["changed"][0]["context"]) == {0.0}
    for before, after in zip(changed["steps"], changed["changed"], strict=True):
        assert [word[0] for word in before["likeliest"]] == [w[0] for w in after["likeliest"]]
        assert before["likeliest"] != after["likeliest"]
    one = ask(subject, reply=REPLY, change={"step": 1, "position": 2, "weight": 1})
    assert one["changed"][0]["likeliest"] == one["steps"][0]["likeliest"]
    assert one["changed"][1]["weights"] == [float(place == 2) for place in range(16)]
    close(torch.tensor(one["changed"][1]["context"]), torch.tensor(base["states"][2]))


def test_out_of_sight_there_is_no_score() -> None:
    subject = make_subject(attention_window="recent", attention_window_size=3)
    step = ask(subject)["steps"][0]
    assert [score is None for score in step["scores"]] == [True] * 13 + [False] * 3
    change = {"step": 0, "position": 0, "weight": 0.5}
    assert ask(subject, change=change) == {"error": strings.LESSON_UNSEEN}


def test_a_model_of_two_vocabularies() -> None:
    subject = make_subject(share_embeddings=False, bidirectional=True, bridge="linear")
    reading = PreTrainedTokenizerFast(tokenizer_object=subject.tokenizer.backend_tokenizer)
    reading.eos_token, reading.chat_template = "<end>", None
    found = ask(Subject(subject.model, reading, subject.tokenizer), reply=REPLY)
    assert [one["word"] for one in found["source"]][-1] == "<end>"
    assert "<user>" not in [one["word"] for one in found["source"]]


WEIGHT = {"step": 0, "position": 0, "weight": 0.5}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": "b"}, "a model of these: a"),
        ({"model": None}, "a model of these: a"),
        ({"model": ["a"]}, "a model of these: a"),
        ({"text": None}, "must be text"),
        ({"text": " \n\u200b"}, "Write a sentence"),
        ({"text": "x" * 401}, "401 characters; allowed here: 400"),
        ({"text": "ab " * 41}, "allowed here: 40"),
        ({"reply": 3}, "must be text"),
        ({"reply": ""}, "Write a sentence"),
        ({"reply": "ab " * 30}, "allowed here: 24"),
        ({"change": 7}, "A change is"),
        ({"change": {}}, "A change is"),
        ({"change": {"off": 1}}, "A change is"),
        ({"change": {**WEIGHT, "weight": 1.01}}, "A change is"),
        ({"change": {**WEIGHT, "weight": float("nan")}}, "A change is"),
        ({"change": {**WEIGHT, "weight": True}}, "A change is"),
        ({"change": {**WEIGHT, "position": 16}}, "A change is"),
        ({"change": {**WEIGHT, "position": -1}}, "A change is"),
        ({"change": {**WEIGHT, "step": 24}}, "A change is"),
        ({"change": {**WEIGHT, "step": 0.0}}, "A change is"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], said: str) -> None:
    assert said in ask(make_subject(), **asked)["error"]


def test_half_a_character_and_special_tokens_are_text() -> None:
    words = [one["word"] for one in ask(make_subject(), text="a\ud800 <end><bot>")["source"]]
    assert words.count("<end>") == words.count("<bot>") == 1


def test_nothing_but_a_sentence_is_allowed() -> None:
    lesson = lesson_function({"a": make_subject()})
    assert "a model of these: a" in lesson(None)["error"]
    assert "a model of these: a" in lesson([])["error"]
    subject = make_subject()
    change = {**WEIGHT, "step": len(reply_of(subject))}
    assert ask(subject, reply=REPLY, change=change) == {"error": strings.LESSON_CHANGE}
    none = make_subject(attention="none")
    assert ask(none, change={"off": True}) == {"error": strings.LESSON_NO_CHANGE}
    assert "weights" not in ask(none)["steps"][0]
