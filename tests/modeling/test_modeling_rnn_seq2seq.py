"""The model as a `PreTrainedModel`: inputs, outputs, loss, dropout, gradients, generation."""

from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch
from modeling_helpers import (
    END,
    GO,
    HOLED,
    LENGTHS,
    PAD,
    RIGHT,
    SOURCE,
    VOCABULARY,
    Settings,
    name_of,
    random_tokens,
    tiny_config,
    tiny_model,
)
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.modeling import recurrent_rnn_seq2seq as recurrent
from chatbot.modeling.modeling_rnn_seq2seq import embed

KINDS: list[Settings] = [
    {"cell_type": "lstm", "attention": "general"},
    {"cell_type": "gru", "attention": "dot", "bidirectional": True, "input_feeding": True},
    {"cell_type": "lstm", "attention": "concat", "attention_window": "local-p"},
    {"cell_type": "gru", "attention": "additive"},
    {"cell_type": "lstm", "attention": "none"},
]
TARGET = torch.cat([torch.full((3, 1), GO), random_tokens(3, 3, seed=2)], dim=1)
LABELS = torch.tensor([[5, 6, 7, END], [8, END, -100, -100], [9, 4, END, -100]])
each_kind = pytest.mark.parametrize("settings", KINDS, ids=name_of)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class Calls:
    """Counts calls of a function while letting them through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str):
        self.count, self.function = 0, getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self.function(*args, **kwargs)


# --- the loss --------------------------------------------------------------------------------


def test_labels_are_read_one_step_behind() -> None:
    model = tiny_model()
    shifted = model.prepare_decoder_input_ids_from_labels(LABELS)
    # <go> in front, the last label gone, -100 turned into padding
    assert shifted.tolist() == [[GO, 5, 6, 7], [GO, 8, END, PAD], [GO, 9, 4, END]]
    assert LABELS[1].tolist() == [8, END, -100, -100]
    forced = model(*RIGHT, decoder_input_ids=shifted).logits
    assert torch.equal(model(*RIGHT, labels=LABELS).logits, forced)


def test_the_loss_is_the_mean_cross_entropy_of_labels_that_count() -> None:
    model = tiny_model()
    outputs = model(*RIGHT, labels=LABELS)
    shares = outputs.logits.log_softmax(-1)
    counted = [(0, 0, 5), (0, 1, 6), (0, 2, 7), (0, 3, END), (1, 0, 8), (1, 1, END)]
    counted += [(2, 0, 9), (2, 1, 4), (2, 2, END)]
    by_hand = -sum(shares[place] for place in counted) / 9
    torch.testing.assert_close(outputs.loss, by_hand)


def test_the_loss_of_a_model_that_knows_nothing_is_ln_of_the_vocabulary() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
    assert model(*RIGHT, labels=LABELS).loss.item() == pytest.approx(log(VOCABULARY))


@each_kind
def test_accumulated_gradients_are_those_of_one_batch(settings: Settings) -> None:
    tokens, mask = RIGHT
    whole, parts = tiny_model(**settings), tiny_model(**settings)
    whole(tokens, mask, labels=LABELS).loss.backward()
    for item in range(3):
        rows = slice(item, item + 1)
        outputs = parts(tokens[rows], mask[rows], labels=LABELS[rows], num_items_in_batch=9)
        outputs.loss.backward()
    expected = gradients(whole)
    assert len(expected) == len(dict(whole.named_parameters()))
    torch.testing.assert_close(gradients(parts), expected, rtol=0, atol=1e-6)


@each_kind
def test_padding_leaves_gradients_as_they_are(settings: Settings) -> None:
    results = []
    for tokens, mask in (RIGHT, HOLED):
        model = tiny_model(**settings)
        model(tokens, mask, labels=LABELS).loss.backward()
        results.append(gradients(model))
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


@each_kind
def test_gradient_checkpointing_gives_the_same_gradients(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"dropout": 0.3, "recurrent_dropout": 0.3, **settings}
    plain, checkpointed = tiny_model(**changes).train(), tiny_model(**changes).train()
    checkpointed.activation_checkpointing_enable()
    sequence, counts = Calls(monkeypatch, torch, settings["cell_type"]), []
    for model in (plain, checkpointed):
        torch.manual_seed(3)
        model(*RIGHT, labels=LABELS).loss.backward()
        counts.append(sequence.count)
    torch.testing.assert_close(gradients(checkpointed), gradients(plain), rtol=0, atol=1e-6)
    # each layer ran a second time on the way back
    assert counts[1] - counts[0] == 2 * counts[0]


def test_a_loss_under_autocast_is_finite_and_close() -> None:
    for settings in KINDS:
        model = tiny_model(**settings)
        full = model(*HOLED, labels=LABELS).loss
        with torch.autocast("cpu", torch.bfloat16):
            half = model(*HOLED, labels=LABELS).loss
        half.backward()
        assert half.item() == pytest.approx(full.item(), rel=0.1)
        assert all(gradient.isfinite().all() for gradient in gradients(model).values())


# --- the recurrence --------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("attention", ["none", "dot", "general", "concat"])
def test_a_whole_target_is_one_recurrent_call_a_layer(
    attention: str, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(attention=attention, cell_type=cell, bidirectional=True).train()
    sequence = Calls(monkeypatch, torch, cell)
    step = Calls(monkeypatch, recurrent, "linear")
    packed = Calls(monkeypatch, torch._VF, "_pack_padded_sequence")
    model(*HOLED, labels=LABELS)
    # two layers on each side
    assert (sequence.count, step.count, packed.count) == (4, 0, 0)


@pytest.mark.parametrize("settings", [KINDS[1], KINDS[3]], ids=name_of)
def test_input_feeding_and_additive_attention_go_step_by_step(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(**settings)
    sequence = Calls(monkeypatch, torch, "gru")
    step = Calls(monkeypatch, recurrent, "linear")
    model(*HOLED, labels=LABELS)
    # two products at each step of each of two layers
    assert (sequence.count, step.count) == (2, 4 * LABELS.shape[1])


def test_final_states_are_side_by_side_for_each_layer() -> None:
    model = tiny_model(bidirectional=True)
    encoded = model.get_encoder()(SOURCE, output_hidden_states=True)
    assert encoded.final_hidden.shape == encoded.final_cell.shape == (3, 2, 8)
    for layer in range(2):
        outputs = encoded.hidden_states[layer + 1]
        torch.testing.assert_close(encoded.final_hidden[:, layer, :4], outputs[:, -1, :4])
        torch.testing.assert_close(encoded.final_hidden[:, layer, 4:], outputs[:, 0, 4:])


@each_kind
def test_decoding_leaves_what_the_encoder_returned_as_it_was(settings: Settings) -> None:
    model = tiny_model(**settings)
    tokens, mask = HOLED
    encoded = model.get_encoder()(tokens, mask)
    before = {name: part.clone() for name, part in encoded.items()}
    model(attention_mask=mask, encoder_outputs=encoded, decoder_input_ids=TARGET)
    for name in ("last_hidden_state", "final_hidden", "final_cell"):
        assert torch.equal(encoded[name], before[name])


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 2}], ids=str
)
@pytest.mark.parametrize("attention", ["general", "concat", "additive"])
def test_keys_are_projected_once_a_generation(attention: str, options: dict[str, int]) -> None:
    model = tiny_model(attention=attention)
    model.generation_config.eos_token_id = None
    calls: list[int] = []
    memory = model.model.decoder.attention.score.memory
    memory.register_forward_hook(lambda *_: calls.append(1))
    replies = model.generate(SOURCE[:1], max_new_tokens=8, do_sample=False, **options)
    assert replies.shape[1] == 9
    assert len(calls) == 1


# --- inputs and outputs ----------------------------------------------------------------------


@each_kind
def test_shapes_of_what_is_returned(settings: Settings) -> None:
    model = tiny_model(**settings)
    tokens, mask = HOLED
    outputs = model(
        tokens,
        mask,
        decoder_input_ids=TARGET,
        output_attentions=True,
        output_hidden_states=True,
        use_cache=True,
    )
    assert outputs.logits.shape == (3, 4, VOCABULARY)
    assert outputs.encoder_last_hidden_state.shape == (3, 10, 8)
    sizes = [6, 8, 8]  # the embeddings, then two layers
    assert [tuple(h.shape) for h in outputs.encoder_hidden_states] == [(3, 10, s) for s in sizes]
    assert [tuple(h.shape) for h in outputs.decoder_hidden_states] == [(3, 4, s) for s in sizes]
    assert outputs.decoder_attentions == ()
    expected = [] if settings["attention"] == "none" else [(3, 1, 4, 10)]
    assert [tuple(a.shape) for a in outputs.cross_attentions] == expected
    assert outputs.past_key_values.get_seq_length() == 4
    assert (outputs.encoder_last_hidden_state[~mask.bool()] == 0).all()
    bare = model(tokens, mask, decoder_input_ids=TARGET)
    assert bare.cross_attentions is None
    assert bare.encoder_hidden_states is None
    assert torch.equal(bare.logits, outputs.logits)


def test_a_tuple_instead_of_an_output() -> None:
    model = tiny_model()
    named = model(*RIGHT, labels=LABELS)
    loss, logits, *_ = model(*RIGHT, labels=LABELS, return_dict=False)
    assert torch.equal(loss, named.loss)
    assert torch.equal(logits, named.logits)


@each_kind
def test_ways_to_give_the_source_agree(settings: Settings) -> None:
    model = tiny_model(**settings)
    tokens, mask = HOLED
    expected = model(tokens, mask, decoder_input_ids=TARGET).logits
    encoded = model.get_encoder()(tokens, mask)
    plain = (encoded.last_hidden_state, encoded.final_hidden, encoded.final_cell)
    vectors = model.get_input_embeddings()(tokens)
    said = model.model.get_decoder_input_embeddings()(TARGET)
    ways: list[dict[str, Any]] = [
        {"encoder_outputs": encoded, "decoder_input_ids": TARGET},
        {"encoder_outputs": plain, "decoder_input_ids": TARGET},
        {"inputs_embeds": vectors, "decoder_input_ids": TARGET},
        {"inputs_embeds": vectors, "decoder_inputs_embeds": said},
    ]
    for way in ways:
        assert torch.equal(model(attention_mask=mask, **way).logits, expected)
    reply = model.generate(tokens, attention_mask=mask, max_new_tokens=4, do_sample=False)
    again = model.generate(
        inputs_embeds=vectors, attention_mask=mask, max_new_tokens=4, do_sample=False
    )
    assert again.tolist() == reply.tolist()


def test_only_the_wanted_logits_are_made() -> None:
    model = tiny_model()
    whole = model(*RIGHT, decoder_input_ids=TARGET).logits
    last = model(*RIGHT, decoder_input_ids=TARGET, logits_to_keep=1).logits
    picked = model(*RIGHT, decoder_input_ids=TARGET, logits_to_keep=torch.tensor([0, 2])).logits
    torch.testing.assert_close(last, whole[:, -1:])
    torch.testing.assert_close(picked, whole[:, [0, 2]])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an empty item": (
        {"input_ids": SOURCE, "attention_mask": torch.tensor([[1] * 5, [0] * 5, [1] * 5])},
        "Item 1 of the batch is empty",
    ),
    "an empty source": ({"input_ids": SOURCE[:, :0]}, "The source is empty"),
    "no source": ({}, "either input_ids or inputs_embeds"),
    "two sources": (
        {"input_ids": SOURCE, "inputs_embeds": torch.ones(3, 5, 6)},
        "either input_ids or inputs_embeds",
    ),
    "two targets": (
        {"input_ids": SOURCE, "decoder_inputs_embeds": torch.ones(3, 1, 6)},
        "either decoder_input_ids or decoder_inputs_embeds",
    ),
    "an encoder output without final states": (
        {"encoder_outputs": BaseModelOutput(torch.ones(3, 5, 8))},
        "BaseModelOutput lack the encoder's final states",
    ),
}


@pytest.mark.parametrize(("inputs", "message"), WRONG.values(), ids=WRONG)
def test_wrong_inputs_are_refused(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model()(decoder_input_ids=TARGET, **inputs)


def test_a_target_is_needed() -> None:
    with pytest.raises(ValueError, match="either decoder_input_ids or decoder_inputs_embeds"):
        tiny_model()(*RIGHT)


# --- dropout ---------------------------------------------------------------------------------


def test_embedding_dropout_drops_whole_word_types() -> None:
    config = tiny_config(vocab_size=200, embedding_dropout=0.5)
    table = nn.Embedding(200, 6)
    nn.init.ones_(table.weight)
    tokens = torch.arange(4, 200).repeat(3, 2)
    vectors = embed(table, tokens, config, training=True)
    # the same fate in each place and each item; what stays is doubled, so that the mean stays
    assert (vectors == vectors[:1, :196].repeat(3, 2, 1)).all()
    assert set(vectors.flatten().tolist()) == {0.0, 2.0}
    assert (vectors.amin(-1) == vectors.amax(-1)).all()
    assert 0.3 < (vectors == 0).float().mean() < 0.7
    assert torch.equal(embed(table, tokens, config, training=False), table(tokens))


@pytest.mark.parametrize("name", ["dropout", "embedding_dropout", "recurrent_dropout"])
@each_kind
def test_dropout_acts_in_training_only(settings: Settings, name: str) -> None:
    model = tiny_model(**{name: 0.5}, **settings)
    expected = tiny_model(**settings)(*RIGHT, decoder_input_ids=TARGET).logits
    for _ in range(2):
        assert torch.equal(model(*RIGHT, decoder_input_ids=TARGET).logits, expected)
    model.train()
    first, second = (model(*RIGHT, decoder_input_ids=TARGET).logits for _ in range(2))
    assert not torch.equal(first, second)


def test_recurrent_weights_are_drawn_once_for_a_target_read_step_by_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(input_feeding=True, recurrent_dropout=0.5).train()
    draws = Calls(monkeypatch, model.model.decoder.stack, "weights")
    model(*RIGHT, decoder_input_ids=TARGET)
    assert draws.count == 1


# --- weights ---------------------------------------------------------------------------------


def test_first_weights() -> None:
    model = RnnSeq2SeqForConditionalGeneration(tiny_config(hidden_size=64, embedding_size=32))
    rnn = model.model.encoder.stack.layers[0].rnn
    assert rnn.weight_hh_l0.abs().max() <= 64**-0.5
    assert rnn.weight_hh_l0.std() > 0.05
    # the forget gate starts open (Jozefowicz et al. 2015), once
    assert rnn.bias_ih_l0.tolist() == [0.0] * 64 + [1.0] * 64 + [0.0] * 128
    assert rnn.bias_hh_l0.abs().sum() == 0
    table = model.get_input_embeddings().weight
    assert table.std().item() == pytest.approx(0.05, rel=0.2)
    assert (table[PAD] == 0).all()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_resizing_one_shared_vocabulary(tied: bool) -> None:
    model = tiny_model(embedding_size=8, tie_word_embeddings=tied)
    before = model(*RIGHT, decoder_input_ids=TARGET).logits
    model.resize_token_embeddings(VOCABULARY + 3)
    after = model(*RIGHT, decoder_input_ids=TARGET).logits
    assert after.shape[-1] == VOCABULARY + 3
    torch.testing.assert_close(after[..., :VOCABULARY], before)
    assert model.config.vocab_size == model.config.decoder_vocab_size == VOCABULARY + 3
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    new_words = torch.full_like(SOURCE, VOCABULARY + 1)
    assert model(new_words, labels=LABELS).loss.isfinite()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_resizing_the_source_of_two_vocabularies_leaves_the_target_alone(tied: bool) -> None:
    model = tiny_model(
        embedding_size=8, tie_word_embeddings=tied, share_embeddings=False, decoder_vocab_size=13
    )
    target = TARGET.clamp(max=12)
    before = model(*RIGHT, decoder_input_ids=target).logits
    model.resize_token_embeddings(VOCABULARY + 3)
    after = model(*RIGHT, decoder_input_ids=target).logits
    torch.testing.assert_close(after, before)
    assert model.config.vocab_size == VOCABULARY + 3
    assert model.config.decoder_vocab_size == 13
    assert (model.lm_head.weight is model.model.decoder.embed_tokens.weight) == tied


def test_tied_weights_are_one_tensor() -> None:
    shared = tiny_model(embedding_size=8, tie_word_embeddings=True)
    assert shared.lm_head.weight is shared.model.encoder.embed_tokens.weight
    assert shared.model.decoder.embed_tokens is None
    two = tiny_model(embedding_size=8, tie_word_embeddings=True, share_embeddings=False)
    assert two.lm_head.weight is two.model.decoder.embed_tokens.weight
    assert two.lm_head.weight is not two.model.encoder.embed_tokens.weight


# --- generation ------------------------------------------------------------------------------


def test_two_vocabularies_learn_and_speak() -> None:
    model = tiny_model(share_embeddings=False, decoder_vocab_size=31, hidden_size=16).train()
    source = random_tokens(6, 4)
    labels = torch.cat([random_tokens(6, 3, vocabulary=31), torch.full((6, 1), END)], dim=1)
    labels[0, 0] = 30  # no word of the source
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(source, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    for beams in (1, 3):
        replies = model.eval().generate(source, num_beams=beams, max_new_tokens=6)
        assert replies[:, 1:].tolist() == labels.tolist()


@each_kind
def test_sampling_is_random_and_repeats_with_the_same_seed(settings: Settings) -> None:
    model = tiny_model(**settings)
    tokens, mask = HOLED

    def sample(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        options = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 8}
        options |= {"num_return_sequences": 2, "top_p": 0.95}
        return model.generate(tokens, attention_mask=mask, **options).tolist()

    assert len(sample(0)) == 6
    assert sample(0) == sample(0)
    assert sample(0) != sample(1)


class Listener:
    """Collects what a streamer is told."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parts = 0
        self.ended = False

    def put(self, tokens: Tensor) -> None:
        self.tokens += tokens.flatten().tolist()
        self.parts += 1

    def end(self) -> None:
        self.ended = True


@each_kind
def test_a_streamer_hears_each_token_as_it_is_said(settings: Settings) -> None:
    model = tiny_model(**settings)
    listener = Listener()
    reply = model.generate(SOURCE[:1], max_new_tokens=6, do_sample=False, streamer=listener)
    assert listener.tokens == reply[0].tolist()
    assert listener.parts == len(listener.tokens)
    assert listener.ended


def test_a_generation_returns_the_attention_of_each_step() -> None:
    model = tiny_model()
    model.generation_config.eos_token_id = None
    outputs = model.generate(
        *HOLED[:1],
        attention_mask=HOLED[1],
        max_new_tokens=3,
        do_sample=False,
        output_attentions=True,
        return_dict_in_generate=True,
    )
    assert [step[0].shape for step in outputs.cross_attentions] == [(3, 1, 1, 10)] * 3
    whole = model(*HOLED, decoder_input_ids=outputs.sequences[:, :-1], output_attentions=True)
    steps = torch.cat([step[0] for step in outputs.cross_attentions], dim=2)
    torch.testing.assert_close(steps, whole.cross_attentions[0], rtol=0, atol=2e-6)


def test_replies_of_a_batch_are_those_of_its_items() -> None:
    model = tiny_model()
    tokens, mask = HOLED
    batch = model.generate(tokens, attention_mask=mask, num_beams=3, max_new_tokens=6)
    for item, length in enumerate(LENGTHS):
        alone = model.generate(SOURCE[[item], :length], num_beams=3, max_new_tokens=6)
        assert batch[item, : alone.shape[1]].tolist() == alone[0].tolist()


def test_prompt_lookup_saves_calls_of_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.bias[7] = 100.0  # says the same word again and again, easy to guess
    calls = Calls(monkeypatch, model.model.decoder, "forward")
    reply = model.generate(
        SOURCE[:1], max_new_tokens=20, do_sample=False, prompt_lookup_num_tokens=4
    )
    assert reply[0, 1:].tolist() == [7] * 20
    assert calls.count < 10


def test_another_model_may_guess_ahead() -> None:
    model, helper = tiny_model(), tiny_model(seed=1, cell_type="gru", hidden_size=4)
    options = {"max_new_tokens": 10, "do_sample": False}
    expected = model.generate(SOURCE[:1], **options)
    assisted = model.generate(SOURCE[:1], assistant_model=helper, **options)
    assert assisted.tolist() == expected.tolist()


@pytest.mark.parametrize("given", [dict, lambda pairs: iter(list(pairs))])
def test_an_output_can_be_made_of_one(given: Callable[[Any], Any]) -> None:
    """So torch and accelerate move outputs between devices."""
    model = tiny_model(attention="general", copy=True)
    output = model.model(SOURCE, decoder_input_ids=TARGET)
    again = type(output)(given(output.items()))
    assert list(again) == list(output)
    assert again.to_tuple() == output.to_tuple()
    assert again.last_hidden_state is output["last_hidden_state"]
    assert again.encoder_hidden_states is None
    assert "encoder_hidden_states" not in again
    again.last_hidden_state = again.encoder_last_hidden_state
    assert again["last_hidden_state"] is again[0] is output.encoder_last_hidden_state
