"""The recurrent state as a cache, with states that tell where they come from."""

import pytest
import torch
from modeling_helpers import GO, PAD, Settings, name_of, random_tokens, tiny_model
from torch import Tensor
from transformers import DynamicCache

from chatbot.modeling import RnnSeq2SeqCache

MODELS = [
    {"cell_type": "lstm", "attention": "general", "attention_window": "local-m"},
    {"cell_type": "gru", "attention": "general", "input_feeding": True},
    {"cell_type": "lstm", "attention": "additive"},
    {"cell_type": "gru", "attention": "none"},
]
SOURCE = random_tokens(3, 5, seed=1)


def states(*steps: int) -> Tensor:
    """Hidden states of two items, width 1: item 0 holds the step, item 1 the step + 100."""
    rows = torch.tensor([[float(step) for step in steps], [100.0 + step for step in steps]])
    return rows[:, None, :, None]


def filled(*steps: int, recording: bool = False) -> RnnSeq2SeqCache:
    """Two layers, started with state 0, that have read `steps`; cells are the negatives."""
    cache = RnnSeq2SeqCache(2)
    if recording:
        cache.activate_past_recording()
    for place, layer in enumerate(cache.layers):
        layer.lazy_initialization(states(0), -states(0))
        if steps:
            cache.update(states(*steps), -states(*steps), place, tokens=len(steps))
    cache.attention_keys = torch.tensor([[[7.0]], [[8.0]]])
    return cache


def held(cache: RnnSeq2SeqCache) -> list[list[float]]:
    """Kept states of each item; all layers agree, and cells are the negatives."""
    for layer in cache.layers:
        assert torch.equal(layer.keys, cache.layers[0].keys)
        assert torch.equal(layer.values, -layer.keys)
    return cache.layers[0].keys[:, 0, :, 0].tolist()


def keys_of(cache: RnnSeq2SeqCache) -> list[float]:
    assert cache.attention_keys is not None
    return cache.attention_keys[:, 0, 0].tolist()


def test_only_the_last_state_is_kept() -> None:
    cache = filled(1, 2, 3)
    assert held(cache) == [[3], [103]]
    assert cache.get_seq_length() == 3
    assert cache.batch_size == 2


def test_a_sequence_that_gives_only_its_last_state_counts_every_token() -> None:
    cache = filled()
    for place in range(2):
        cache.update(states(4), -states(4), place, tokens=4)
    assert cache.get_seq_length() == 4
    assert held(cache) == [[4], [104]]


def test_recording_keeps_every_state() -> None:
    cache = filled(1, 2, recording=True)
    for place in range(2):
        cache.update(states(3), -states(3), place, tokens=1)
    assert held(cache) == [[0, 1, 2, 3], [100, 101, 102, 103]]
    assert cache.get_seq_length() == 3
    assert cache.is_recording


def test_crop_takes_recorded_tokens_back() -> None:
    cache = filled(1, 2, 3, recording=True)
    cache.crop(-2)
    assert held(cache) == [[1], [101]]
    assert cache.get_seq_length() == 1
    for place in range(2):
        cache.update(states(5, 6), -states(5, 6), place, tokens=2)
    cache.crop(-1)
    assert held(cache) == [[5], [105]]
    assert cache.get_seq_length() == 2


def test_crop_can_take_everything_back() -> None:
    cache = filled(1, 2, recording=True)
    cache.crop(-2)
    assert held(cache) == [[0], [100]]
    assert cache.get_seq_length() == 0


def test_crop_of_nothing_forgets_the_record() -> None:
    cache = filled(1, 2, recording=True)
    cache.crop(0)
    assert held(cache) == [[2], [102]]
    assert cache.get_seq_length() == 2


@pytest.mark.parametrize(
    ("recording", "remove", "message"),
    [
        (False, -1, r"crop\(-1\) .* states of 0 tokens .* activate_past_recording"),
        (True, -3, r"crop\(-3\) .* states of 2 tokens are kept"),
        (True, 1, r"crop\(1\) .* allowed: 0 or"),
    ],
    ids=["not recorded", "too many", "positive"],
)
def test_crop_refuses_what_it_cannot_do(recording: bool, remove: int, message: str) -> None:
    cache = filled(1, 2, recording=recording)
    before = held(cache)
    with pytest.raises(ValueError, match=message):
        cache.crop(remove)
    assert held(cache) == before
    assert cache.get_seq_length() == 2


def test_reorder_takes_states_and_keys_along() -> None:
    cache = filled(1)
    cache.reorder_cache(torch.tensor([1, 1]))
    assert held(cache) == [[101], [101]]
    assert keys_of(cache) == [8, 8]


def test_repeat_puts_copies_side_by_side() -> None:
    cache = filled(1)
    cache.batch_repeat_interleave(2)
    assert held(cache) == [[1], [1], [101], [101]]
    assert keys_of(cache) == [7, 7, 8, 8]


def test_select_keeps_the_named_items() -> None:
    cache = filled(1, 2, recording=True)
    cache.batch_select_indices(torch.tensor([1]))
    assert held(cache) == [[100, 101, 102]]
    assert keys_of(cache) == [8]


def test_reset_forgets_everything() -> None:
    cache = filled(1)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert not cache.has_state
    assert cache.attention_keys is None
    assert cache.batch_size == -1


def test_an_empty_cache_can_be_reordered_and_cropped() -> None:
    cache = RnnSeq2SeqCache(1)
    cache.reorder_cache(torch.tensor([0]))
    cache.batch_repeat_interleave(3)
    cache.batch_select_indices(torch.tensor([0]))
    cache.crop(-1)
    assert not cache.has_state


def test_the_flags_that_generate_reads() -> None:
    cache = RnnSeq2SeqCache(2)
    assert cache.is_croppable
    assert not cache.is_compileable
    assert filled(1, 2).layers[0].get_mask_sizes(3) == (5, 0)
    assert cache.layers[0].get_max_length() == -1


@pytest.mark.parametrize("settings", MODELS, ids=name_of)
def test_a_model_continues_from_the_cache_that_generate_returned(settings: Settings) -> None:
    model = tiny_model(**settings)
    model.generation_config.eos_token_id = None
    options = {"attention_mask": torch.ones_like(SOURCE), "do_sample": False}
    whole = model.generate(SOURCE, max_new_tokens=9, **options)
    part = model.generate(SOURCE, max_new_tokens=4, return_dict_in_generate=True, **options)
    # the last token was said, not read
    assert part.past_key_values.get_seq_length() == 4
    rest = model.generate(
        SOURCE,
        decoder_input_ids=part.sequences,
        past_key_values=part.past_key_values,
        max_new_tokens=5,
        **options,
    )
    assert rest.tolist() == whole.tolist()


@pytest.mark.parametrize("settings", MODELS, ids=name_of)
def test_a_reply_that_begins_with_given_words(settings: Settings) -> None:
    model = tiny_model(**settings)
    model.generation_config.eos_token_id = None
    begun = torch.cat([torch.full((3, 1), GO), random_tokens(3, 3, seed=4)], dim=1)
    options = {"attention_mask": torch.ones_like(SOURCE), "do_sample": False, "max_new_tokens": 5}
    cached = model.generate(SOURCE, decoder_input_ids=begun, **options)
    plain = model.generate(SOURCE, decoder_input_ids=begun, use_cache=False, **options)
    assert cached[:, :4].tolist() == begun.tolist()
    assert cached.tolist() == plain.tolist()


@pytest.mark.parametrize("settings", MODELS, ids=name_of)
@torch.no_grad()
def test_rows_of_a_reordered_cache_go_on_as_those_rows(settings: Settings) -> None:
    model = tiny_model(**settings)
    target = random_tokens(3, 4, seed=3)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 0, 0, 0, 0]])
    whole = model(SOURCE, mask, decoder_input_ids=target).logits
    cache = model.model.decoder.new_cache()
    model(SOURCE, mask, decoder_input_ids=target[:, :2], past_key_values=cache)
    order = torch.tensor([2, 0])
    cache.reorder_cache(order)
    rest = model(
        SOURCE[order], mask[order], decoder_input_ids=target[order, 2:], past_key_values=cache
    )
    torch.testing.assert_close(rest.logits, whole[order, 2:], rtol=0, atol=2e-6)


def test_caches_of_other_kinds_are_refused() -> None:
    model = tiny_model()
    options = {"attention_mask": torch.ones_like(SOURCE), "max_new_tokens": 2}
    with pytest.raises(
        ValueError, match=r"DynamicCache is not possible; allowed: .*RnnSeq2SeqCache"
    ):
        model.generate(SOURCE, past_key_values=DynamicCache(), **options)
    for kind in ("static", "quantized", "offloaded"):
        with pytest.raises(ValueError, match=f"cache_implementation='{kind}' is not possible"):
            model.generate(SOURCE, cache_implementation=kind, **options)


def test_a_cache_given_by_the_caller_is_used() -> None:
    model = tiny_model(attention="none")
    cache = model.model.decoder.new_cache()
    outputs = model.generate(
        SOURCE,
        attention_mask=(SOURCE != PAD).long(),
        past_key_values=cache,
        max_new_tokens=3,
        return_dict_in_generate=True,
    )
    assert outputs.past_key_values is cache
    assert cache.get_seq_length() > 0
