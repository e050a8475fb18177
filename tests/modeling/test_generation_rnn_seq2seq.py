"""`generate()`: searching, sampling, guessing ahead, what it returns, and what it goes on from.

`test_generation_options.py` goes through its options one by one.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from chat_helpers import Chatbot
from generation_helpers import (
    ADDITIVE,
    CLOSE,
    COPYING,
    FLAGS,
    ITEM,
    KINDS,
    NAMED,
    OTHER,
    SAMPLING,
    SCORED,
    SHARES,
    STEPS,
    Reads,
    beams_by_hand,
    by_hand,
    generated,
    next_scores,
    own_scores,
    replies,
    say_in_shares,
    speaker,
)
from modeling_helpers import (
    END,
    GO,
    HOLED,
    LENGTHS,
    PAD,
    SOURCE,
    VOCABULARY,
    Settings,
    name_of,
    random_tokens,
    tiny_model,
)
from torch import Tensor
from transformers import (
    AsyncTextIteratorStreamer,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    DynamicCache,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
)
from transformers.generation import utils as transformers_generation

each_kind = pytest.mark.parametrize("settings", KINDS, ids=name_of)
HOLED_SOURCE = {"source": HOLED[0], "attention_mask": HOLED[1]}


def twice(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each item two times, as the best two beams belong to one."""
    return {name: part.repeat_interleave(2, dim=0) for name, part in source.items()}


# --- searching and sampling ------------------------------------------------------------------


@each_kind
def test_beams_are_those_by_hand(settings: Settings) -> None:
    model = speaker(settings)
    found = generated(model, num_beams=3, eos_token_id=None, max_new_tokens=6)
    assert found[0].tolist() == beams_by_hand(model, 3, 6)


@pytest.mark.parametrize("beams", [1, 3])
@each_kind
def test_a_batch_gives_the_replies_of_its_items(settings: Settings, beams: int) -> None:
    model = speaker(settings, end=1.0)
    options = {"num_beams": beams, "num_return_sequences": beams}
    batch = replies(generated(model, **HOLED_SOURCE, **options))
    for item, length in enumerate(LENGTHS):
        alone = generated(model, SOURCE[[item], :length], **options)
        assert batch[item * beams : (item + 1) * beams] == replies(alone)


@each_kind
def test_beams_are_returned_best_first(settings: Settings) -> None:
    model = speaker(settings, end=1.0)
    four = generated(model, SOURCE, num_beams=4, num_return_sequences=4, **SCORED)
    two = generated(model, SOURCE, num_beams=4, num_return_sequences=2, **SCORED)
    scores = four.sequences_scores.view(3, 4)
    assert (scores.diff(dim=1) <= 0).all()
    assert len({tuple(reply) for reply in replies(four.sequences[:4])}) == 4
    torch.testing.assert_close(two.sequences_scores.view(3, 2), scores[:, :2])


@each_kind
def test_all_warpers_at_once(settings: Settings) -> None:
    model = speaker(settings)
    options = SCORED | {"do_sample": True, "temperature": 3.0, "num_return_sequences": 5}
    options |= {"top_k": 4, "top_p": 0.9, "top_h": 0.9, "typical_p": 0.9, "min_p": 0.02}
    options |= {"epsilon_cutoff": 0.01, "eta_cutoff": 0.01}
    sampled = generated(model, SOURCE, **options)
    for step, scores in enumerate(sampled.scores):
        running = (sampled.sequences[:, 1 : step + 1] != END).all(1)
        chosen = scores.gather(1, sampled.sequences[:, step + 1, None])
        assert chosen[running].isfinite().all()
        assert (scores.isfinite().sum(1) <= 4).all()
    assert len({tuple(row) for row in sampled.sequences.tolist()}) > 5


@each_kind
def test_sampled_beams_score_what_the_model_gives(settings: Settings) -> None:
    model = speaker(settings, end=1.0)
    options = SAMPLING | SCORED | {"num_beams": 3, "num_return_sequences": 2}

    def sample(seed: int) -> Any:
        torch.manual_seed(seed)
        return generated(model, **HOLED_SOURCE, **options)

    found = sample(0)
    own, length = own_scores(model, found.sequences, **twice(HOLED_SOURCE))
    torch.testing.assert_close(found.sequences_scores, own.sum(1) / length, **CLOSE)
    assert sample(0).sequences.tolist() == found.sequences.tolist()
    assert len({str(replies(sample(seed).sequences)) for seed in range(3)}) > 1


# --- guessing ahead --------------------------------------------------------------------------


def bart() -> BartForConditionalGeneration:
    """A transformer with the same tokens."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "d_model": 8, "max_position_embeddings": 64}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 1, f"{side}_ffn_dim": 8, f"{side}_attention_heads": 2}
    ids = {"pad_token_id": PAD, "bos_token_id": GO, "eos_token_id": END}
    ids |= {"decoder_start_token_id": GO, "forced_eos_token_id": None}
    return BartForConditionalGeneration(BartConfig(**sizes, **ids, init_std=1.0)).eval()


def gpt() -> GPT2LMHeadModel:
    sizes = {"vocab_size": VOCABULARY, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 32}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=GO, eos_token_id=END))


SMALL: Settings = {"cell_type": "gru", "attention": "dot", "hidden_size": 4, "decoder_layers": 1}
SMALL |= {"bridge": "zero"}
HELPERS: dict[str, Callable[[Settings], Any]] = {
    "a twin": speaker,
    "other weights": lambda settings: speaker(settings, 1),
    "another kind": lambda _: tiny_model(**SMALL),
    "a copying one": lambda _: speaker(COPYING, 2),
    "a transformer": lambda _: bart(),
}


@pytest.mark.parametrize("helper", HELPERS)
@each_kind
def test_assisted_decoding_is_greedy_search(settings: Settings, helper: str) -> None:
    model, assistant = speaker(settings), HELPERS[helper](settings)
    assistant.generation_config.update(assistant_confidence_threshold=0.0, num_assistant_tokens=4)
    reads = Reads(model)
    for source in (ITEM, OTHER):
        greedy = generated(model, source, max_new_tokens=15)
        reads.forget()
        assisted = generated(model, source, assistant_model=assistant, max_new_tokens=15)
        assert assisted.tolist() == greedy.tolist()
        assert max(reads.widths) == 5
        if helper == "a twin":
            assert len(reads.widths) == -(-(greedy.shape[1] - 1) // 5)


def test_we_may_assist_a_transformer() -> None:
    model = bart()
    greedy = generated(model, max_new_tokens=15)
    assisted = generated(model, assistant_model=speaker(COPYING), max_new_tokens=15)
    assert assisted.tolist() == greedy.tolist()


@each_kind
def test_prompt_lookup_is_greedy_search(settings: Settings) -> None:
    model = speaker(settings)
    reads = Reads(model)
    for begun in ([GO], [GO, 5, 6, 7, 5, 6]):
        options = {"decoder_input_ids": torch.tensor([begun]), "max_new_tokens": 24}
        greedy = generated(model, **options)
        reads.forget()
        looked_up = generated(model, prompt_lookup_num_tokens=3, **options)
        assert looked_up.tolist() == greedy.tolist()
        assert max(reads.widths[1:]) > 1


@each_kind
def test_guessing_ahead_returns_what_greedy_search_returns(settings: Settings) -> None:
    model = speaker(settings)
    greedy = generated(model, **NAMED, **FLAGS)
    everything = ["scores", "logits", "encoder_hidden_states"]
    stepwise = ["cross_attentions", "decoder_attentions", "decoder_hidden_states"]
    for way, names in (
        ({"prompt_lookup_num_tokens": 3}, everything + stepwise),
        # transformers repeats the first step's attention and states for words guessed in it
        ({"assistant_model": speaker(settings, 1)}, everything),
    ):
        ahead = generated(model, **NAMED, **FLAGS, **way)
        assert ahead.sequences.tolist() == greedy.sequences.tolist()
        assert ahead.past_key_values.get_seq_length() == greedy.past_key_values.get_seq_length()
        for name in names:
            torch.testing.assert_close(ahead[name], greedy[name], **CLOSE)


def test_assisted_sampling_draws_from_the_model() -> None:
    model, helper = speaker(COPYING), speaker(COPYING, 1)
    share = say_in_shares(model)
    helper.generation_config.update(assistant_confidence_threshold=0.0, num_assistant_tokens=1)
    drawn = torch.zeros(VOCABULARY)
    for _ in range(120):
        reply = generated(model, assistant_model=helper, max_new_tokens=2, **SAMPLING)
        drawn[reply[0, 1]] += 1 / 120
    assert set(drawn.nonzero().flatten().tolist()) == set(SHARES)
    assert (drawn - share).abs().max() < 0.1
    guess = next_scores(helper, [GO]).softmax(-1)
    assert (guess - share).abs().max() > 0.25


@pytest.mark.parametrize("attention", ["general", "concat", "additive"])
def test_keys_are_projected_once_with_an_assistant(attention: str) -> None:
    model, helper = (tiny_model(seed, attention=attention) for seed in (0, 1))
    helper.generation_config.update(assistant_confidence_threshold=0.0, num_assistant_tokens=2)
    calls: list[Any] = []
    for one in (model, helper):
        memory = one.model.decoder.attention.score.memory
        memory.register_forward_hook(lambda module, *_: calls.append(module))
    reads = Reads(model)
    generated(model, assistant_model=helper, eos_token_id=None)
    assert len(reads.widths) > 2
    assert len(calls) == len(set(calls)) == 2


ASSISTANTS: dict[str, tuple[Callable[[], Any], str]] = {
    "no encoder": (gpt, r"GPT2LMHeadModel .* an encoder-decoder"),
    "another vocabulary": (lambda: tiny_model(vocab_size=25), r"\(25, 25\) .* \(19, 19\)"),
    "another target": (
        lambda: tiny_model(share_embeddings=False, decoder_vocab_size=31),
        r"\(19, 31\) .* \(19, 19\)",
    ),
}


@pytest.mark.parametrize(("make", "message"), ASSISTANTS.values(), ids=ASSISTANTS)
def test_assistants_that_cannot_work_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^assistant_model=.*{message}"):
        generated(tiny_model(), assistant_model=make())


def test_an_assistant_needs_the_source_itself() -> None:
    model = tiny_model()
    encoded, vectors = model.get_encoder()(ITEM), model.get_input_embeddings()(ITEM)
    for way in ({"encoder_outputs": encoded}, {"inputs_embeds": vectors}):
        with pytest.raises(ValueError, match=r"^assistant_model without input_ids is not possible"):
            generated(model, None, assistant_model=tiny_model(), **way)


# --- what is returned ------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 3])
@each_kind
def test_shapes_of_what_a_generation_returns(settings: Settings, beams: int) -> None:
    model = speaker(settings, end=-1e4)
    returned, rows = 3 * min(beams, 2), 3 * beams
    options = FLAGS | NAMED | {"num_beams": beams, "num_return_sequences": min(beams, 2)}
    options |= {"decoder_input_ids": torch.tensor([[GO, 5, 6]] * 3), "max_new_tokens": 4}
    outputs = generated(model, **HOLED_SOURCE, **options)
    assert outputs.sequences.shape == (returned, 7)
    assert [step.shape for step in outputs.scores] == [(rows, VOCABULARY)] * 4
    assert [step.shape for step in outputs.logits] == [(rows, VOCABULARY)] * 4
    # the first step reads the words that were begun with; widths are those of embeddings and layers
    steps, widths = (3, 1, 1, 1), (6, 8, 8)
    attended = [] if settings["attention"] == "none" else [(rows, 1, step, 10) for step in steps]
    assert [part.shape for step in outputs.cross_attentions for part in step] == attended
    assert outputs.decoder_attentions == ((),) * 4
    for step, parts in zip(steps, outputs.decoder_hidden_states, strict=True):
        assert [part.shape for part in parts] == [(rows, step, width) for width in widths]
    assert [part.shape for part in outputs.encoder_hidden_states] == [(3, 10, w) for w in widths]
    assert outputs.past_key_values.get_seq_length() == 6
    assert outputs.past_key_values.batch_size == rows
    if beams > 1:
        assert outputs.sequences_scores.shape == (returned,)
        assert outputs.beam_indices.shape == (returned, 4)


@each_kind
def test_transition_scores_are_the_models_log_probabilities(settings: Settings) -> None:
    model = speaker(settings, end=1.0)
    greedy = generated(model, **HOLED_SOURCE, **SCORED)
    scores = model.compute_transition_scores(greedy.sequences, greedy.scores, normalize_logits=True)
    own, _ = own_scores(model, greedy.sequences, **HOLED_SOURCE)
    torch.testing.assert_close(scores.where(own != 0, 0.0), own, **CLOSE)
    for penalty in (1.0, 0.4):
        options = SCORED | {"num_beams": 4, "num_return_sequences": 2, "length_penalty": penalty}
        beams = generated(model, **HOLED_SOURCE, **options)
        scores = model.compute_transition_scores(beams.sequences, beams.scores, beams.beam_indices)
        own, length = own_scores(model, beams.sequences, **twice(HOLED_SOURCE))
        torch.testing.assert_close(scores, own, **CLOSE)
        total = scores.sum(1) / length**penalty
        torch.testing.assert_close(beams.sequences_scores, total, **CLOSE)


@pytest.mark.parametrize("size", [13, 31], ids=["a smaller target", "a larger target"])
def test_two_vocabularies_generate_alike(size: int) -> None:
    settings = ADDITIVE | {"share_embeddings": False, "decoder_vocab_size": size}
    model = speaker(settings, end=-1e4)
    for beams in (1, 3):
        found = generated(model, num_beams=beams, **SCORED)
        own, _ = own_scores(model, found.sequences)
        for normalize in (True, False)[:beams]:
            scores = model.compute_transition_scores(
                found.sequences, found.scores, found.get("beam_indices"), normalize_logits=normalize
            )
            torch.testing.assert_close(scores, own, **CLOSE)
    greedy = generated(model, max_new_tokens=30).tolist()
    lookup = {"prompt_lookup_num_tokens": 3, "suppress_tokens": [PAD]}
    for way in (lookup, {"assistant_model": speaker(settings, 1)}):
        assert generated(model, max_new_tokens=30, **way).tolist() == greedy
    assert model.config.vocab_size == VOCABULARY


# --- where a reply stops, and who hears it ---------------------------------------------------


class SaidTwice(StoppingCriteria):
    """Stops a reply that has said a word twice."""

    def __init__(self, word: int):
        self.word = word

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return (input_ids == self.word).sum(1) >= 2


class Echo(LogitsProcessor):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_fill(1, input_ids[0, -1:], 1e6)


def test_ones_own_processors_and_criteria() -> None:
    model = speaker(ADDITIVE)
    plain = by_hand(model)
    word = next(token for token in plain if plain.count(token) > 1)
    second = plain.index(word, plain.index(word) + 1)
    stopping = StoppingCriteriaList([SaidTwice(word)])
    assert generated(model, stopping_criteria=stopping)[0].tolist() == plain[: second + 1]
    echo = generated(model, logits_processor=LogitsProcessorList([Echo()]))
    assert echo[0].tolist() == [GO] * (1 + STEPS)


def test_of_two_processors_of_one_effect_one_is_called() -> None:
    model, own = speaker(ADDITIVE), MinLengthLogitsProcessor(STEPS, END)
    called = []

    class Watched(MinLengthLogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            called.append(input_ids.shape[1])
            return super().__call__(input_ids, scores)

    watched = LogitsProcessorList([Watched(STEPS - 1, END)])
    reply = generated(model, min_new_tokens=3, logits_processor=watched)
    assert called == list(range(1, reply.shape[1]))  # one that was given stays
    config = GenerationConfig(min_length=4, min_new_tokens=3, eos_token_id=END)
    config._eos_token_tensor = torch.tensor([END])
    (made,) = model._get_logits_processor(config, 1)
    assert isinstance(made, MinNewTokensLengthLogitsProcessor)
    assert own in model._get_logits_processor(
        config, 1, logits_processor=LogitsProcessorList([own])
    )


@pytest.mark.parametrize("ends", [[END], [END, 7]])
def test_the_least_new_tokens_are_those_of_transformers(ends: list[int]) -> None:
    model = speaker(ADDITIVE)
    config = GenerationConfig(min_new_tokens=3, eos_token_id=ends)
    config._eos_token_tensor = torch.tensor(ends)
    (own,) = model._get_logits_processor(config, 2)
    theirs = MinNewTokensLengthLogitsProcessor(2, 3, ends)
    assert type(own) is not type(theirs)
    scores = torch.randn(4, model.config.vocab_size)
    for length in range(2, 8):
        words = torch.zeros(4, length, dtype=torch.long)
        assert own(words, scores).equal(theirs(words, scores))
    assert scores.isfinite().all()  # nothing is changed in place


def test_an_end_that_is_no_token_ends_nothing() -> None:
    model = speaker(ADDITIVE)
    config = GenerationConfig(min_new_tokens=3, eos_token_id=-1)
    config._eos_token_tensor = torch.tensor([-1])
    (made,) = model._get_logits_processor(config, 1)
    scores = torch.randn(2, model.config.vocab_size)
    assert made(torch.zeros(2, 1, dtype=torch.long), scores).equal(scores)


@pytest.mark.parametrize("beams", [1, 3])
def test_only_allowed_tokens(beams: int) -> None:
    allowed = [[5, 6], [7, 8], [9, 10]]
    options = {"num_beams": beams, "prefix_allowed_tokens_fn": lambda item, _: allowed[item]}
    sequences = generated(speaker(ADDITIVE), SOURCE, **options)
    for words, row in zip(allowed, sequences[:, 1:].tolist(), strict=True):
        assert set(row) <= set(words)


def chat(chatbot: Chatbot, **options: Any) -> tuple[list[int], str]:
    """A reply of the random chatbot, and its words."""
    model, tokenizer = chatbot
    source = tokenizer("hello, how are you?", return_tensors="pt").input_ids
    options = {"min_new_tokens": 12, "max_new_tokens": 24} | options
    reply = generated(model, source, **options)[0]
    return reply.tolist(), tokenizer.decode(reply, skip_special_tokens=True)


def test_stop_strings_across_tokens(tiny_chatbot: Chatbot) -> None:
    tokenizer = tiny_chatbot[1]
    reply, text = chat(tiny_chatbot, do_sample=True)
    stop = text[len(text) // 2 - 3 : len(text) // 2 + 3]
    torch.manual_seed(0)
    short, words = chat(tiny_chatbot, do_sample=True, stop_strings=[stop], tokenizer=tokenizer)
    assert short == reply[: len(short)]
    assert len(short) < len(reply)
    assert stop in words
    assert stop not in tokenizer.decode(short[:-1], skip_special_tokens=True)


WAYS = [{}, {"prompt_lookup_num_tokens": 3}, {"do_sample": True}]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_text_streamer_prints_the_reply(
    tiny_chatbot: Chatbot, way: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    streamer = TextStreamer(tiny_chatbot[1], skip_special_tokens=True)
    _, text = chat(tiny_chatbot, streamer=streamer, **way)
    assert len(text) > 12
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_text_iterator_streamer_gives_the_reply_in_parts(
    tiny_chatbot: Chatbot, way: dict[str, Any]
) -> None:
    streamer = TextIteratorStreamer(tiny_chatbot[1], timeout=60, skip_special_tokens=True)
    said: list[str] = []
    speaking = Thread(target=lambda: said.append(chat(tiny_chatbot, streamer=streamer, **way)[1]))
    speaking.start()
    parts = [part for part in streamer if part]
    speaking.join()
    assert len(parts) > 1
    assert ["".join(parts)] == said


def test_an_async_text_iterator_streamer_gives_the_reply_in_parts(tiny_chatbot: Chatbot) -> None:
    async def listen() -> tuple[list[str], str]:
        streamer = AsyncTextIteratorStreamer(tiny_chatbot[1], timeout=60, skip_special_tokens=True)
        speaking = asyncio.create_task(asyncio.to_thread(chat, tiny_chatbot, streamer=streamer))
        parts = [part async for part in streamer if part]
        return parts, (await speaking)[1]

    parts, text = asyncio.run(listen())
    assert len(parts) > 1
    assert "".join(parts) == text


# --- configurations --------------------------------------------------------------------------


def test_a_generation_config_survives_saving(tmp_path: Path) -> None:
    model = speaker(ADDITIVE, end=1.0)
    lengths = {"num_beams": 3, "max_new_tokens": 7, "length_penalty": 0.5}
    rules = {"no_repeat_ngram_size": 2, "sequence_bias": [[[5], 2.0]], "bad_words_ids": [[6]]}
    ids = {"decoder_start_token_id": GO, "eos_token_id": [END, 8], "pad_token_id": PAD}
    config = GenerationConfig(**lengths, **rules, **ids)
    config.save_pretrained(tmp_path / "alone")
    loaded = GenerationConfig.from_pretrained(tmp_path / "alone")
    assert loaded == config
    expected = model.generate(ITEM, generation_config=config).tolist()
    assert expected != generated(model).tolist()
    assert model.generate(ITEM, generation_config=loaded).tolist() == expected
    model.generation_config = config
    model.save_pretrained(tmp_path / "model")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    assert again.generation_config == config
    assert again.generate(ITEM).tolist() == expected


# --- sources, replies that were begun, and caches --------------------------------------------


@pytest.mark.parametrize("beams", [1, 3])
@each_kind
def test_a_source_that_is_encoded_already(settings: Settings, beams: int) -> None:
    model = speaker(settings)
    expected = generated(model, **HOLED_SOURCE, num_beams=beams).tolist()
    with torch.no_grad():
        encoded = model.get_encoder()(*HOLED)
    model.get_encoder().register_forward_hook(lambda *_: pytest.fail("encoded once more"))
    given = {"encoder_outputs": encoded, "attention_mask": HOLED[1]}
    assert generated(model, None, num_beams=beams, **given).tolist() == expected


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("settings", KINDS[:4], ids=name_of)  # without tokens, nothing to copy
def test_a_source_of_embeddings(settings: Settings, beams: int) -> None:
    model = speaker(settings)
    expected = generated(model, **HOLED_SOURCE, num_beams=beams).tolist()
    vectors = model.get_input_embeddings()(HOLED[0])
    given = {"inputs_embeds": vectors, "attention_mask": HOLED[1]}
    assert generated(model, None, num_beams=beams, **given).tolist() == expected


@each_kind
def test_a_reply_goes_on_as_it_was_begun(settings: Settings) -> None:
    model = speaker(settings)
    begun = (GO, 5, 6, 7)
    expected = by_hand(model, begun=begun)
    for prompt in (begun, begun[1:]):  # `<go>` may be left out
        for way in ({}, {"use_cache": False}, {"assistant_model": speaker(settings, 1)}):
            reply = generated(model, decoder_input_ids=torch.tensor([prompt]), **way)
            assert reply[0].tolist() == expected
    beams = generated(model, decoder_input_ids=torch.tensor([begun]), num_beams=3, **SCORED)
    assert beams.sequences[0, :4].tolist() == list(begun)
    own, length = own_scores(model, beams.sequences)
    score = own[:, 3:].sum(1) / (length - 3)
    torch.testing.assert_close(beams.sequences_scores, score, **CLOSE)


def test_a_reply_cannot_be_begun_with_embeddings() -> None:
    with pytest.raises(ValueError, match="either decoder_input_ids or decoder_inputs_embeds"):
        generated(tiny_model(), decoder_inputs_embeds=torch.ones(1, 2, 6))


@each_kind
def test_a_reply_continues_from_its_cache(settings: Settings) -> None:
    model = speaker(settings, end=-1e4)
    options = NAMED | HOLED_SOURCE
    whole = generated(model, max_new_tokens=9, **options)
    reads = Reads(model)
    part = generated(model, max_new_tokens=3, **options)
    for _ in range(2):
        begun = {"decoder_input_ids": part.sequences, "past_key_values": part.past_key_values}
        part = generated(model, max_new_tokens=3, **begun, **options)
    assert part.sequences.tolist() == whole.sequences.tolist()
    assert reads.widths == [1] * 9


@each_kind
def test_beams_continue_from_one_reply(settings: Settings) -> None:
    model = speaker(settings, end=-1e4)
    part = generated(model, max_new_tokens=3, **HOLED_SOURCE, **NAMED)
    begun = HOLED_SOURCE | {"decoder_input_ids": part.sequences, "num_beams": 3}
    with pytest.raises(ValueError, match="past_key_values of 3 rows is not possible; allowed: 9"):
        generated(model, past_key_values=part.past_key_values, **begun)
    part.past_key_values.batch_repeat_interleave(3)
    rest = generated(model, past_key_values=part.past_key_values, **begun)
    assert rest.tolist() == generated(model, **begun).tolist()


@each_kind
def test_some_of_a_batch_continue_in_another_order(settings: Settings) -> None:
    model = speaker(settings, end=-1e4)
    whole = generated(model, max_new_tokens=6, **HOLED_SOURCE).tolist()
    part = generated(model, max_new_tokens=3, **HOLED_SOURCE, **NAMED)
    chosen = torch.tensor([2, 0])
    part.past_key_values.batch_select_indices(chosen)
    some = {name: rows[chosen] for name, rows in HOLED_SOURCE.items()}
    some |= {"decoder_input_ids": part.sequences[chosen], "past_key_values": part.past_key_values}
    assert generated(model, max_new_tokens=3, **some).tolist() == [whole[2], whole[0]]


def test_a_cache_wants_the_whole_reply() -> None:
    model = speaker(ADDITIVE, end=-1e4)
    part = generated(model, max_new_tokens=3, **NAMED)
    for begun in ({}, {"decoder_input_ids": part.sequences[:, -1:]}):
        with pytest.raises(ValueError, match="allowed: the whole target, 4 tokens or more"):
            generated(model, past_key_values=part.past_key_values, **begun)


def test_a_cache_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"DynamicCache is not possible; .*RnnSeq2SeqCache"):
        generated(tiny_model(), past_key_values=DynamicCache())


class NoEvent:
    """Where there is nothing to wait for."""

    def __init__(self, **options: Any):
        pass

    def record(self) -> None:
        pass

    synchronize = record


@each_kind
def test_a_cache_is_right_where_the_end_is_seen_a_step_late(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # on Apple's GPUs transformers reads a token too many, and takes it back if the cache lives on
    model = speaker(settings)
    model.generation_config.eos_token_id = by_hand(model)[4]
    expected = generated(model, **NAMED)
    right = expected.past_key_values

    def is_supported(device: Any, cache: Any, cache_is_returned: bool, is_assistant: Any) -> bool:
        return cache.is_croppable or not cache_is_returned

    monkeypatch.setattr(torch, "Event", NoEvent)
    late = transformers_generation.DeferredStopCheck
    monkeypatch.setattr(late, "is_supported", staticmethod(is_supported))
    reads, own = Reads(model), model.model.decoder.new_cache()
    outputs = generated(model, **NAMED)
    assert len(reads.widths) == right.get_seq_length() + 1
    assert outputs.sequences.tolist() == expected.sequences.tolist()
    assert generated(model, past_key_values=own).tolist() == expected.sequences.tolist()
    for past in (outputs.past_key_values, own):
        assert past.get_seq_length() == right.get_seq_length()
        for given, wanted in zip(past.layers, right.layers, strict=True):
            torch.testing.assert_close(given.keys, wanted.keys)


# --- threads ---------------------------------------------------------------------------------


def requests(settings: Settings) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Sources and ways to answer them; all assistants are one."""
    helper = speaker(settings, 1)
    ways: list[dict[str, Any]] = [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"assistant_model": helper},
        {"prompt_lookup_num_tokens": 3},
        {"use_cache": False, "repetition_penalty": 1.3},
        {"num_beams": 2, "no_repeat_ngram_size": 2},
        {"assistant_model": helper, "decoder_input_ids": torch.tensor([[GO, 5, 6]])},
        {"encoder_no_repeat_ngram_size": 1},
    ]
    for place in range(16):
        yield random_tokens(1, 2 + place % 5, seed=place), ways[place % 8]


@each_kind
def test_sixteen_threads_do_not_disturb_each_other(settings: Settings) -> None:
    model = speaker(settings)
    asked = list(requests(settings))

    def reply(request: tuple[Tensor, dict[str, Any]]) -> list[list[int]]:
        source, way = request
        return generated(model, source, **way).tolist()

    alone = [reply(request) for request in asked]
    assert len({str(said) for said in alone}) > 10
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(reply, asked * 2))
    assert together == alone * 2
