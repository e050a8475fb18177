"""What must hold for every cell with every attention, window and input feeding."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from modeling_helpers import (
    END,
    GO,
    HOLED,
    LEFT,
    LENGTHS,
    PAD,
    RIGHT,
    SOURCE,
    VOCABULARY,
    Settings,
    name_of,
    random_tokens,
    tiny_model,
    variants,
)
from torch import Tensor
from transformers import GenerationMixin

from chatbot.modeling import RnnSeq2SeqForConditionalGeneration

CELLS_AND_ATTENTION = variants()
WITH_DIRECTIONS = variants(bidirectional=True)
ATTENTIVE = [settings for settings in CELLS_AND_ATTENTION if settings["attention"] != "none"]
WINDOWED = [s for s in ATTENTIVE if s["attention_window"] != "global"]
STATEFUL = [
    {"cell_type": "lstm", "attention": "none"},
    {"cell_type": "lstm", "attention": "general", "input_feeding": True},
    {"cell_type": "gru", "attention": "concat", "attention_window": "local-p"},
    {"cell_type": "gru", "attention": "additive", "attention_window": "recent"},
]
TARGET = torch.cat([torch.full((3, 1), GO), random_tokens(3, 6, seed=2)], dim=1)
CLOSE = {"rtol": 0, "atol": 2e-6}


@torch.no_grad()
def logits_and_weights(
    model: RnnSeq2SeqForConditionalGeneration, tokens: Tensor, mask: Tensor | None, **inputs: Any
) -> tuple[Tensor, list[Tensor]]:
    """Logits, and for each item its attention to its real tokens (T, tokens)."""
    inputs = {"decoder_input_ids": TARGET} | inputs
    outputs = model(tokens, mask, output_attentions=True, **inputs)
    if not outputs.cross_attentions:
        return outputs.logits, []
    weights = outputs.cross_attentions[0][:, 0]
    real = torch.ones_like(tokens).bool() if mask is None else mask.bool()
    return outputs.logits, [row[:, places] for row, places in zip(weights, real, strict=True)]


def assert_same(given: tuple[Tensor, list[Tensor]], expected: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(given[0], expected[0], **CLOSE)
    torch.testing.assert_close(given[1], expected[1], **CLOSE)


def generated(model: RnnSeq2SeqForConditionalGeneration, tokens: Tensor, **options: Any) -> Any:
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True} | options
    mask = options.pop("attention_mask", torch.ones_like(tokens))
    return model.generate(tokens, attention_mask=mask, **options)


@torch.no_grad()
def argmax_loop(
    model: RnnSeq2SeqForConditionalGeneration, tokens: Tensor, mask: Tensor, steps: int
) -> list[list[int]]:
    """Greedy search in its plainest form: one item, the whole target read anew for each token."""
    said = []
    for item in range(len(tokens)):
        reply = [GO]
        while len(reply) <= steps and reply[-1] != END:
            target = torch.tensor([reply])
            logits = model(tokens[[item]], mask[[item]], decoder_input_ids=target).logits
            reply.append(int(logits[0, -1].argmax()))
        said.append(reply)
    return said


def speaking_model(settings: Settings) -> RnnSeq2SeqForConditionalGeneration:
    """A model that never says `<pad>`, as a trained one."""
    model = tiny_model(**settings)
    with torch.no_grad():
        model.lm_head.bias[PAD] = -1e4
    return model


def said_mask(sequences: Tensor) -> Tensor:
    """True on the tokens after `<go>` up to the first `<end>`, (B, T - 1).

    What follows is padding in greedy search, and more `<end>` in transformers' beam search.
    """
    ended = (sequences[:, 1:] == END).long()
    return ended.cumsum(1) - ended == 0


def replies(sequences: Tensor) -> list[list[int]]:
    """The tokens of each sequence from `<go>` to `<end>`."""
    lengths = 1 + said_mask(sequences).sum(1)
    return [row[:length].tolist() for row, length in zip(sequences, lengths, strict=True)]


@pytest.mark.parametrize("settings", WITH_DIRECTIONS, ids=name_of)
def test_padding_anywhere_changes_nothing(settings: Settings) -> None:
    model = tiny_model(**settings)
    right = logits_and_weights(model, *RIGHT)
    assert_same(logits_and_weights(model, *LEFT), right)
    assert_same(logits_and_weights(model, *HOLED), right)


@pytest.mark.parametrize("settings", WITH_DIRECTIONS, ids=name_of)
def test_a_batch_equals_its_items(settings: Settings) -> None:
    model = tiny_model(**settings)
    logits, weights = logits_and_weights(model, *HOLED)
    for item, length in enumerate(LENGTHS):
        alone = logits_and_weights(
            model, SOURCE[[item], :length], None, decoder_input_ids=TARGET[[item]]
        )
        assert_same((logits[[item]], weights[item : item + 1]), alone)


@pytest.mark.parametrize("settings", ATTENTIVE, ids=name_of)
def test_rows_of_attention_sum_to_one_and_leave_padding_out(settings: Settings) -> None:
    model = tiny_model(**settings)
    tokens, mask = HOLED
    weights = model(tokens, mask, decoder_input_ids=TARGET, output_attentions=True)
    weights = weights.cross_attentions[0]
    assert weights.shape == (3, 1, TARGET.shape[1], tokens.shape[1])
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
    assert (weights >= 0).all()
    assert (weights[~mask.bool()[:, None, None].expand_as(weights)] == 0).all()


@pytest.mark.parametrize("settings", WITH_DIRECTIONS, ids=name_of)
@torch.no_grad()
def test_step_by_step_equals_teacher_forcing(settings: Settings) -> None:
    model = tiny_model(**settings)
    tokens, mask = HOLED
    whole = logits_and_weights(model, tokens, mask)
    encoded = model.get_encoder()(tokens, mask)
    cache, steps = model.model.decoder.new_cache(), []
    for step in range(TARGET.shape[1]):
        part = TARGET[:, step : step + 1]
        steps.append(
            logits_and_weights(
                model,
                tokens,
                mask,
                decoder_input_ids=part,
                encoder_outputs=encoded,
                past_key_values=cache,
            )
        )
        assert cache.get_seq_length() == step + 1
    weights = [torch.cat(rows) for rows in zip(*(step[1] for step in steps), strict=True)]
    assert_same((torch.cat([step[0] for step in steps], dim=1), weights), whole)


@pytest.mark.parametrize("settings", CELLS_AND_ATTENTION, ids=name_of)
@torch.no_grad()
def test_a_target_read_in_two_chunks_equals_one(settings: Settings) -> None:
    model = tiny_model(**settings)
    tokens, mask = HOLED
    whole = model(tokens, mask, decoder_input_ids=TARGET).logits
    for recording in (False, True):
        cache = model.model.decoder.new_cache()
        if recording:
            cache.activate_past_recording()
        chunks = [
            model(tokens, mask, decoder_input_ids=chunk, past_key_values=cache).logits
            for chunk in TARGET.split((3, 4), dim=1)
        ]
        torch.testing.assert_close(torch.cat(chunks, dim=1), whole, **CLOSE)


@pytest.mark.parametrize("settings", CELLS_AND_ATTENTION, ids=name_of)
@torch.no_grad()
def test_recorded_tokens_can_be_taken_back(settings: Settings) -> None:
    model = tiny_model(**settings)
    tokens, mask = HOLED
    other = torch.cat([TARGET[:, :3], random_tokens(3, 2, seed=5)], dim=1)
    cache = model.model.decoder.new_cache()
    cache.activate_past_recording()
    model(tokens, mask, decoder_input_ids=TARGET, past_key_values=cache)
    cache.crop(-4)
    assert cache.get_seq_length() == 3
    after = model(tokens, mask, decoder_input_ids=other[:, 3:], past_key_values=cache).logits
    expected = model(tokens, mask, decoder_input_ids=other).logits[:, 3:]
    torch.testing.assert_close(after, expected, **CLOSE)


@pytest.mark.parametrize("settings", CELLS_AND_ATTENTION, ids=name_of)
def test_greedy_is_the_argmax_loop_with_and_without_cache(settings: Settings) -> None:
    model = speaking_model(settings)
    tokens, mask = HOLED
    cached = generated(model, tokens, attention_mask=mask)
    plain = generated(model, tokens, attention_mask=mask, use_cache=False)
    assert cached.past_key_values is not None
    assert plain.past_key_values is None
    assert cached.sequences.tolist() == plain.sequences.tolist()
    assert replies(cached.sequences) == argmax_loop(model, tokens, mask, steps=8)


@pytest.mark.parametrize("settings", CELLS_AND_ATTENTION, ids=name_of)
def test_prompt_lookup_equals_greedy(settings: Settings) -> None:
    model = speaking_model(settings)
    tokens = SOURCE[:1]
    greedy = generated(model, tokens, max_new_tokens=12)
    looked_up = generated(model, tokens, max_new_tokens=12, prompt_lookup_num_tokens=3)
    assert looked_up.sequences.tolist() == greedy.sequences.tolist()


def beam_of_one(model: RnnSeq2SeqForConditionalGeneration, *args: Any, **options: Any) -> Any:
    """Beam search proper: `generate(num_beams=1)` would run greedy search."""
    return GenerationMixin._beam_search(model, *args, **options)


@pytest.mark.parametrize("settings", CELLS_AND_ATTENTION, ids=name_of)
def test_a_beam_of_one_equals_greedy(settings: Settings) -> None:
    model = speaking_model(settings)
    tokens, mask = HOLED
    greedy = generated(model, tokens, attention_mask=mask)
    beam = generated(
        model, tokens, attention_mask=mask, custom_generate=beam_of_one, early_stopping=True
    )
    assert replies(beam.sequences) == replies(greedy.sequences)


@torch.no_grad()
def own_scores(
    model: RnnSeq2SeqForConditionalGeneration, tokens: Tensor, mask: Tensor, sequences: Tensor
) -> tuple[Tensor, Tensor]:
    """The model's log-probability of each sequence, and its number of tokens after `<go>`."""
    logits = model(tokens, mask, decoder_input_ids=sequences[:, :-1]).logits
    counted = said_mask(sequences)
    chosen = logits.log_softmax(-1).gather(2, sequences[:, 1:, None])[..., 0]
    return (chosen * counted).sum(1), counted.sum(1)


@pytest.mark.parametrize("settings", CELLS_AND_ATTENTION, ids=name_of)
def test_the_score_of_a_beam_is_the_score_of_the_model(settings: Settings) -> None:
    model = speaking_model(settings)
    tokens, mask = HOLED
    for penalty in (1.0, 0.5):
        beams = generated(
            model,
            tokens,
            attention_mask=mask,
            num_beams=4,
            num_return_sequences=2,
            length_penalty=penalty,
            output_scores=True,
        )
        twice = (part.repeat_interleave(2, dim=0) for part in (tokens, mask))
        total, length = own_scores(model, *twice, beams.sequences)
        torch.testing.assert_close(
            beams.sequences_scores, total / length**penalty, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("settings", STATEFUL, ids=name_of)
def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_pair(settings: Settings) -> None:
    model = tiny_model(**settings)
    with torch.no_grad():
        model.lm_head.bias[END] = -1e4
    tokens = SOURCE[:1]
    pairs = torch.cartesian_prod(torch.arange(VOCABULARY), torch.arange(VOCABULARY))
    every = torch.cat([torch.full((len(pairs), 1), GO), pairs], dim=1)
    with torch.no_grad():
        logits = model(tokens.expand(len(pairs), -1), decoder_input_ids=every[:, :-1]).logits
    scores = logits.log_softmax(-1).gather(2, pairs[..., None]).sum((1, 2))
    found = generated(
        model, tokens, num_beams=VOCABULARY, max_new_tokens=2, length_penalty=0.0
    ).sequences
    assert found[0, 1:3].tolist() == pairs[scores.argmax()].tolist()


@pytest.mark.parametrize("settings", WINDOWED, ids=name_of)
def test_a_window_as_long_as_the_source_is_global(settings: Settings) -> None:
    everywhere = tiny_model(**settings | {"attention_window": "global"})
    # a Gaussian of standard deviation 5e5 is level over ten positions
    size = 10**6 if settings["attention_window"] == "local-p" else SOURCE.shape[1]
    windowed = tiny_model(**settings, attention_window_size=size)
    loaded = windowed.load_state_dict(everywhere.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert_same(logits_and_weights(windowed, *HOLED), logits_and_weights(everywhere, *HOLED))


@pytest.mark.parametrize("settings", STATEFUL, ids=name_of)
def test_eight_threads_do_not_disturb_each_other(settings: Settings) -> None:
    model = tiny_model(**settings)
    sources = [random_tokens(1 + place % 2, 3 + place % 5, seed=place) for place in range(16)]

    def reply(source: Tensor) -> list[list[int]]:
        beams = 1 + len(source)
        return generated(model, source, max_new_tokens=12, num_beams=beams).sequences.tolist()

    alone = [reply(source) for source in sources]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(reply, sources * 2))
    assert together == alone * 2
