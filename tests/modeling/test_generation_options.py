"""Each mode and option of transformers' `generate()` has its effect, or says why it cannot.

An option that a later transformers brings fails `test_every_option_is_classified` until it stands
in one of the three tables.
"""

from collections.abc import Callable
from itertools import pairwise
from math import log
from typing import Any

import pytest
import torch
from generation_helpers import (
    ADDITIVE,
    CLOSE,
    COPYING,
    FLAGS,
    ITEM,
    NAMED,
    OTHER,
    SAMPLING,
    SCORED,
    SHARES,
    STEPS,
    Model,
    Reads,
    Rule,
    beams_by_hand,
    by_hand,
    generated,
    next_scores,
    replies,
    say_in_shares,
    speaker,
)
from modeling_helpers import END, GO, VOCABULARY, Settings, name_of, random_tokens, tiny_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    CompileConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    WatermarkDetector,
    WatermarkingConfig,
)
from transformers.generation import GenerationMode
from transformers.generation import utils as transformers_generation

Check = Callable[[Model], None]

# --- options that work -----------------------------------------------------------------------

WORKS: dict[str, Check] = {}


def works(*fields: str) -> Callable[[Check], Check]:
    """Registers the proof that options have their effect."""

    def register(check: Check) -> Check:
        WORKS.update(dict.fromkeys(fields, check))
        return check

    return register


def banning(*tokens: int) -> Rule:
    return lambda scores, *_: scores.index_fill(0, torch.tensor(tokens).long(), -torch.inf)


def assert_follows(model: Model, rule: Rule, **options: Any) -> None:
    """Replies under `options` are those by hand, and not all as without them."""
    changed = False
    for source in (ITEM, OTHER):
        expected = by_hand(model, rule, source=source)
        assert generated(model, source, **options)[0].tolist() == expected
        changed |= expected != by_hand(model, source=source)
    assert changed


@works("repetition_penalty")
def _(model: Model) -> None:
    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        for token in set(reply):
            scores[token] *= 1.8 if scores[token] < 0 else 1 / 1.8
        return scores

    assert_follows(model, rule, repetition_penalty=1.8)


@works("encoder_repetition_penalty")
def _(model: Model) -> None:
    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        for token in set(source):
            scores[token] *= 6 if scores[token] < 0 else 1 / 6
        return scores

    # above 1 it favours the words of the source, below it avoids them
    assert_follows(model, rule, encoder_repetition_penalty=1 / 6)


@works("no_repeat_ngram_size")
def _(model: Model) -> None:
    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        said = [after for before, after in pairwise(reply) if before == reply[-1]]
        return banning(*said)(scores, reply, source)

    assert_follows(model, rule, no_repeat_ngram_size=2)


@works("encoder_no_repeat_ngram_size")
def _(model: Model) -> None:
    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        return banning(*source)(scores, reply, source)

    assert_follows(model, rule, encoder_no_repeat_ngram_size=1)


@works("bad_words_ids")
def _(model: Model) -> None:
    _, first, second, third, *_ = by_hand(model)

    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        return banning(first, *[third] * (reply[-1] == second))(scores, reply, source)

    assert_follows(model, rule, bad_words_ids=[[first], [second, third]])


@works("sequence_bias")
def _(model: Model) -> None:
    first, second = by_hand(model)[1:3]

    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        scores[second] -= 2.5
        scores[9] += 50 * (reply[-1] == first)
        return scores

    assert_follows(model, rule, sequence_bias=[[[second], -2.5], [[first, 9], 50.0]])


@works("suppress_tokens")
def _(model: Model) -> None:
    first = by_hand(model)[1]
    assert_follows(model, banning(first), suppress_tokens=[first])


@works("begin_suppress_tokens")
def _(model: Model) -> None:
    first = by_hand(model)[1]

    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        return banning(*[first] * (len(reply) == 1))(scores, reply, source)

    assert_follows(model, rule, begin_suppress_tokens=[first])


@works("forced_bos_token_id")
def _(model: Model) -> None:
    word = 4 + (by_hand(model)[1] == 4)

    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        scores[word] += 1e6 * (len(reply) == 1)
        return scores

    assert_follows(model, rule, forced_bos_token_id=word)


@works("forced_eos_token_id")
def _(model: Model) -> None:
    plain = by_hand(model)
    assert END not in plain
    assert generated(model, forced_eos_token_id=END)[0].tolist() == [*plain[:-1], END]


@works("min_length", "min_new_tokens")
def _(model: Model) -> None:
    with torch.no_grad():
        model.lm_head.bias[END] += 20

    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        return banning(*[END] * (len(reply) < 6))(scores, reply, source)

    for begun, new in (((GO,), 5), ((GO, 5, 6), 3)):  # one counts what was begun with, one not
        prompt, expected = torch.tensor([begun]), by_hand(model, rule, begun)
        assert len(by_hand(model, begun=begun)) < 6 < len(expected)
        for option in ({"min_length": 6}, {"min_new_tokens": new}):
            assert generated(model, decoder_input_ids=prompt, **option)[0].tolist() == expected


@works("exponential_decay_length_penalty")
def _(model: Model) -> None:
    def rule(scores: Tensor, reply: list[int], source: list[int]) -> Tensor:
        over = len(reply) - 3
        scores[END] += abs(scores[END]) * (3.0**over - 1) * (over > 0)
        return scores

    with torch.no_grad():
        model.lm_head.bias[END] += 1  # a score of 0 would stay
    assert_follows(model, rule, exponential_decay_length_penalty=(2, 3.0))


@works("renormalize_logits")
def _(model: Model) -> None:
    options = SCORED | {"suppress_tokens": [5, 6]}
    plain = torch.stack(generated(model, **options).scores)
    scores = torch.stack(generated(model, renormalize_logits=True, **options).scores)
    assert (plain.logsumexp(-1).abs() > 1e-6).any()
    torch.testing.assert_close(scores, plain.log_softmax(-1))


@works("remove_invalid_values")
def _(model: Model) -> None:
    with torch.no_grad():
        model.lm_head.bias[7] = torch.nan
    assert torch.stack(generated(model, **SCORED).scores).isnan().any()
    mended = generated(model, remove_invalid_values=True, **SCORED)
    assert torch.stack(mended.scores).isfinite().all()


# A value of each parameter of sampling, and what it leaves of them.
WARPERS: dict[str, tuple[float, set[int]]] = {
    "top_k": (2, {4, 5}),
    "top_p": (0.8, {4, 5, 6}),  # 0.7 are too few
    "min_p": (0.3, {4, 5, 6}),  # 0.3 of 0.40
    "epsilon_cutoff": (0.2, {4, 5}),
    "eta_cutoff": (0.2, {4, 5, 6}),  # sqrt(0.2) exp(-1.392) = 0.111
    "typical_p": (0.2, {5}),  # -log 0.3 = 1.204 is nearest to the entropy
    "top_h": (0.6, {4, 5}),  # 0.367 + 0.361 < 0.6 * 1.392 < 0.367 + 0.361 + 0.285
}


def warps(field: str) -> Check:
    value, left = WARPERS[field]

    def check(model: Model) -> None:
        say_in_shares(model)
        options = SAMPLING | SCORED | {field: value, "max_new_tokens": 1}
        scores = generated(model, **options).scores[0][0]
        assert set(scores.isfinite().nonzero().flatten().tolist()) == left
        for token in left:
            assert scores[token].item() == pytest.approx(log(SHARES[token]), abs=1e-5)

    return check


WORKS |= {field: warps(field) for field in WARPERS}


@works("do_sample", "temperature", "num_return_sequences")
def _(model: Model) -> None:
    share = say_in_shares(model)
    for temperature in (1.0, 2.0):
        options = SAMPLING | {"temperature": temperature, "num_return_sequences": 4000}
        drawn = generated(model, max_new_tokens=1, **options)[:, 1]
        often = drawn.bincount(minlength=VOCABULARY) / 4000
        expected = share ** (1 / temperature)
        torch.testing.assert_close(often, expected / expected.sum(), rtol=0, atol=0.025)


@works("max_length", "max_new_tokens")
def _(model: Model) -> None:
    prompt = torch.tensor([[GO, 5, 6]])
    assert generated(model, decoder_input_ids=prompt, max_length=7).shape == (1, 7)
    assert generated(model, decoder_input_ids=prompt, max_new_tokens=7).shape[1] > 7


@works("max_time")
def _(model: Model) -> None:
    assert generated(model, max_time=1e-9).shape == (1, 2)
    assert generated(model, max_time=1e9).shape == (1, 1 + STEPS)


@works("stop_strings")
def _(model: Model) -> None:
    # token 0 is `a`, token 1 `b`, ...
    letters = Tokenizer(models.WordLevel({chr(97 + at): at for at in range(VOCABULARY)}, "a"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    letters.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters)
    plain = by_hand(model)
    text = tokenizer.decode(plain)
    end = text.index(text[3:5]) + 2
    assert end < len(text)
    reply = generated(model, stop_strings=[text[3:5], "aa"], tokenizer=tokenizer)
    assert reply[0].tolist() == plain[:end]


@works("eos_token_id")
def _(model: Model) -> None:
    plain = by_hand(model)
    first, second, *_ = dict.fromkeys(plain[3:])
    for stops in ([first, second], [second, first], [second], second):
        listed = stops if isinstance(stops, list) else [stops]
        end = min(plain.index(token) for token in listed)
        assert generated(model, eos_token_id=stops)[0].tolist() == plain[: end + 1]


@works("pad_token_id")
def _(model: Model) -> None:
    pair = {"decoder_input_ids": torch.tensor([[GO, 5], [GO, 6]])}
    plain = generated(model, ITEM.expand(2, -1), max_new_tokens=1, **pair)
    stop = int(plain[0, 2])
    assert plain[1, 2] != stop
    padded = generated(model, ITEM.expand(2, -1), eos_token_id=stop, pad_token_id=1, **pair)
    assert padded[0].tolist() == [GO, 5, stop] + [1] * (padded.shape[1] - 3)
    assert padded.shape[1] > 3


@works("bos_token_id")
def _(model: Model) -> None:
    # without any source, that token is the source
    scores = generated(model, None, bos_token_id=6, **SCORED).scores[0][0]
    torch.testing.assert_close(scores, next_scores(model, [GO], torch.tensor([[6]])), **CLOSE)


@works("decoder_start_token_id")
def _(model: Model) -> None:
    expected = by_hand(model, begun=(6,))
    assert expected[1:] != by_hand(model)[1:]
    assert generated(model, decoder_start_token_id=6)[0].tolist() == expected
    pair = generated(model, ITEM.expand(2, -1), decoder_start_token_id=[GO, 6])
    assert replies(pair) == [by_hand(model), expected]


@works("use_cache")
def _(model: Model) -> None:
    reads = Reads(model)
    kept = generated(model, **NAMED)
    assert reads.widths == [1] * STEPS
    reads.forget()
    plain = generated(model, use_cache=False, **NAMED)
    assert reads.widths == list(range(1, STEPS + 1))
    assert plain.past_key_values is None
    assert plain.sequences.tolist() == kept.sequences.tolist()


@works("is_assistant")
def _(model: Model) -> None:
    for recording in (False, True):
        outputs = generated(model, is_assistant=recording, **SCORED)
        assert outputs.past_key_values.is_recording == recording


@works("return_dict_in_generate", *FLAGS)
def _(model: Model) -> None:
    brought = {
        "output_scores": {"scores"},
        "output_logits": {"logits"},
        "output_attentions": {"cross_attentions", "decoder_attentions"},
        "output_hidden_states": {"decoder_hidden_states", "encoder_hidden_states"},
    }
    assert isinstance(generated(model), Tensor)
    for flag in FLAGS:
        outputs = generated(model, **NAMED, **{flag: True})
        assert set(outputs) == {"sequences", "past_key_values"} | brought[flag]


@works("num_beams")
def _(model: Model) -> None:
    for beams in (2, 4):
        found = generated(model, num_beams=beams, eos_token_id=None, max_new_tokens=6)
        assert found[0].tolist() == beams_by_hand(model, beams, 6)


@works("length_penalty", "early_stopping")
def _(model: Model) -> None:
    with torch.no_grad():
        model.lm_head.bias[END] += 3
    reads, sources = Reads(model), [random_tokens(1, 4, seed=seed) for seed in range(5)]

    def search(**options: Any) -> tuple[int, int]:
        """Tokens said and read in all."""
        reads.forget()
        said = [replies(generated(model, source, num_beams=3, **options))[0] for source in sources]
        return sum(map(len, said)), len(reads.widths)

    short, long = (search(length_penalty=penalty)[0] for penalty in (-4.0, 4.0))
    assert short < long
    # as soon as there are three replies; once none can be better now; once none ever can
    stops = (True, False, "never")
    few, more, most = (search(early_stopping=stop, length_penalty=2.0)[1] for stop in stops)
    assert few < more < most


def widths_of_drafts(model: Model, **changes: Any) -> list[int]:
    """How many tokens the model reads at a time when an assistant guesses right each time."""
    twin = Model(model.config).eval()
    twin.load_state_dict(model.state_dict())
    settings = {"assistant_confidence_threshold": 0.0, "num_assistant_tokens": 2} | changes
    twin.generation_config.update(**settings)
    expected = generated(model, max_new_tokens=12, eos_token_id=None)
    reads = Reads(model)
    reply = generated(model, assistant_model=twin, max_new_tokens=12, eos_token_id=None)
    assert reply.tolist() == expected.tolist()
    return reads.widths


@works("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold")
def _(model: Model) -> None:
    # a call reads the last token, which the model gave on top of the guesses, and new guesses
    assert widths_of_drafts(model, num_assistant_tokens=2) == [3, 3, 3, 3]
    assert widths_of_drafts(model, num_assistant_tokens=5) == [6, 6]
    growing = {"num_assistant_tokens": 1, "num_assistant_tokens_schedule": "heuristic"}
    assert widths_of_drafts(model, **growing) == [2, 4, 6]
    assert widths_of_drafts(model, assistant_confidence_threshold=2.0) == [2] * 6


@works("assistant_ensemble_weight")
def _(model: Model) -> None:
    helper = speaker(ADDITIVE, 1)
    helper.generation_config.update(assistant_confidence_threshold=0.0, num_assistant_tokens=2)
    expected = [GO]
    while len(expected) < 10:  # two of the assistant's tokens pass, then one is the model's own
        for voice in (helper, helper, model):
            expected.append(int(next_scores(voice, expected).argmax()))
    options = {"assistant_model": helper, "max_new_tokens": 9, "eos_token_id": None}
    assert generated(model, assistant_ensemble_weight=1e-6, **options)[0].tolist() == expected
    assert generated(model, **options)[0].tolist() == by_hand(model)[:10] != expected


@works("prompt_lookup_num_tokens", "max_matching_ngram_size")
def _(model: Model) -> None:
    # after `5 6` came 9, but after the first 6 came 10
    begun = {"decoder_input_ids": torch.tensor([[GO, 8, 6, 10, 5, 6, 9, 5, 6]])}
    plain, reads = generated(model, **begun).tolist(), Reads(model)
    for size, guess in ((1, 10), (2, 9)):
        for tokens in (1, 3):
            reads.forget()
            options = {"prompt_lookup_num_tokens": tokens, "max_matching_ngram_size": size}
            assert generated(model, **begun, **options).tolist() == plain
            assert reads.widths[0] == 9 + tokens
            assert reads.tokens[0][9] == guess


@works("watermarking_config")
def _(model: Model) -> None:
    green = []
    for bias in (0.0, 50.0):
        mark = WatermarkingConfig(bias=bias)
        reply = generated(model, watermarking_config=mark, max_new_tokens=20, eos_token_id=None)
        detector = WatermarkDetector(model.config, "cpu", mark.to_dict())
        green.append(detector(reply, return_dict=True).green_fraction.item())
    assert green[0] < 0.7
    assert green[1] == 1.0


# --- options that do nothing, and options that cannot apply ----------------------------------

NO_EFFECT: dict[str, tuple[Any, str]] = {
    "disable_compile": (True, "nothing is compiled anyway"),
    "_from_model_config": (True, "says where a configuration came from"),
    "transformers_version": ("4.0.0", "says what wrote a configuration"),
}
REFUSED: dict[str, tuple[Any, str]] = {
    "cache_implementation": ("static", "'dynamic' (a recurrent state has one size)"),
    "cache_config": ({"backend": "quanto"}, "None (a recurrent state has one size)"),
    "max_cache_len": (64, "None (a recurrent state has one size)"),
    "compile_config": (CompileConfig(), "None (a recurrent state is neither compiled nor"),
    "prefill_chunk_size": (2, "None (a recurrent state is neither compiled nor read in chunks)"),
    "continuous_batching_config": ({}, "None (continuous batching pages keys and values)"),
    "low_memory": (True, "None (all beams run as one batch)"),
    "penalty_alpha": (0.6, "None (transformers has contrastive search as remote code only)"),
    "dola_layers": ("high", "None (transformers has DoLa as remote code only)"),
    "num_beam_groups": (2, "1 (transformers has group beams as remote code only)"),
    "diversity_penalty": (0.5, "None (transformers has group beams as remote code only)"),
    "constraints": ([], "None (transformers has constrained beams as remote code only)"),
    "force_words_ids": ([[5]], "None (transformers has constrained beams as remote code only)"),
    "use_mtp": (True, "None (only an assistant_model can guess ahead)"),
    "speculation_type": ("dflash", "None (only an assistant_model can guess ahead)"),
    "assistant_early_exit": (1, "None (only an assistant_model can guess ahead)"),
    "assistant_lookbehind": (5, "10 (an assistant speaks in the same tokens)"),
    "target_lookbehind": (5, "10 (an assistant speaks in the same tokens)"),
    "guidance_scale": (1.5, "1 (classifier-free guidance runs a decoder without a source)"),
    "token_healing": (True, "None (it would take a reply that was begun for a source)"),
}
# What leaves such an option off beside None; files of older versions hold these.
OFF = {"cache_implementation": "dynamic", "guidance_scale": 1.0, "num_beam_groups": 1}
OFF |= {"assistant_lookbehind": 10, "target_lookbehind": 10}
OFF |= dict.fromkeys(("penalty_alpha", "diversity_penalty"), 0.0)
OFF |= dict.fromkeys(("low_memory", "use_mtp", "token_healing"), False)
MODES: dict[GenerationMode, tuple[dict[str, Any], str | None]] = {
    GenerationMode.GREEDY_SEARCH: ({}, None),
    GenerationMode.SAMPLE: ({"do_sample": True}, None),
    GenerationMode.BEAM_SEARCH: ({"num_beams": 2}, None),
    GenerationMode.BEAM_SAMPLE: ({"num_beams": 2, "do_sample": True}, None),
    GenerationMode.ASSISTED_GENERATION: ({"prompt_lookup_num_tokens": 2}, None),
    GenerationMode.CONTRASTIVE_SEARCH: ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive search"),
    GenerationMode.DOLA_GENERATION: ({"dola_layers": "low"}, "DoLa"),
    GenerationMode.GROUP_BEAM_SEARCH: ({"num_beams": 2, "num_beam_groups": 2}, "group beams"),
    GenerationMode.CONSTRAINED_BEAM_SEARCH: ({"force_words_ids": [[5]]}, "constrained beams"),
}
CACHES = transformers_generation.ALL_STATIC_CACHE_IMPLEMENTATIONS


def test_every_option_is_classified() -> None:
    classified = [*WORKS, *NO_EFFECT, *REFUSED]
    assert len(classified) == len(set(classified))
    assert set(classified) == set(vars(GenerationConfig()))


@pytest.mark.parametrize("settings", [ADDITIVE, COPYING], ids=name_of)
@pytest.mark.parametrize("field", WORKS)
def test_an_option_has_its_effect(field: str, settings: Settings) -> None:
    WORKS[field](speaker(settings))


@pytest.mark.parametrize("field", NO_EFFECT)
def test_an_option_without_effect(field: str) -> None:
    model, (value, _) = speaker(ADDITIVE), NO_EFFECT[field]
    assert generated(model, **{field: value}).tolist() == generated(model).tolist()


@pytest.fixture
def no_remote_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails as soon as transformers looks for code on the Hub."""

    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail("looked for remote code")

    for name in ("has_file", "get_cached_module_file"):
        monkeypatch.setattr(transformers_generation, name, fail)


@pytest.mark.usefixtures("no_remote_code")
@pytest.mark.filterwarnings("ignore:Passing ContinuousBatchingConfig:FutureWarning")
@pytest.mark.parametrize("given_as", ["argument", "config", "default"])
@pytest.mark.parametrize("field", REFUSED)
def test_an_option_that_cannot_apply_says_so(field: str, given_as: str) -> None:
    model, (value, allowed) = tiny_model(), REFUSED[field]
    options: dict[str, Any] = {}
    if given_as == "argument":
        options[field] = value
    elif given_as == "config":
        options["generation_config"] = GenerationConfig(**{field: value})
    else:
        setattr(model.generation_config, field, value)
    for trust in (None, True):
        with pytest.raises(ValueError, match=f"^{field}=.* is not possible; allowed: ") as error:
            model.generate(ITEM, trust_remote_code=trust, **options)
        assert f"allowed: {allowed}" in str(error.value)


@pytest.mark.parametrize("kind", [*CACHES, "offloaded", "quantized", "paged"])
def test_no_cache_but_the_recurrent_one(kind: str) -> None:
    with pytest.raises(ValueError, match=f"^cache_implementation='{kind}' is not possible"):
        tiny_model().generate(ITEM, cache_implementation=kind)


def test_options_that_are_off_are_no_obstacle() -> None:
    model = speaker(ADDITIVE)
    plain = generated(model).tolist()
    assert generated(model, **OFF).tolist() == plain
    assert generated(model, **dict.fromkeys(REFUSED)).tolist() == plain


@pytest.mark.usefixtures("no_remote_code")
@pytest.mark.parametrize("mode", GenerationMode)
def test_every_mode_works_or_says_why_not(mode: GenerationMode) -> None:
    model, (options, reason) = speaker(ADDITIVE), MODES[mode]
    assert GenerationConfig(**options).get_generation_mode() == mode
    if reason is None:
        assert generated(model, **options)[0, 0] == GO
    else:
        with pytest.raises(ValueError, match=f"not possible; .* {reason} as remote code only"):
            generated(model, **options)


def test_continuous_batching_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=r"^continuous batching is not possible"):
        model.generate_batch([[4, 5]], max_new_tokens=2)
    with pytest.raises(ValueError, match=r"^continuous batching is not possible"):
        model.init_continuous_batching()
    with (
        pytest.raises(ValueError, match=r"^continuous batching is not possible"),
        model.continuous_batching_context_manager(),
    ):
        pass


@pytest.mark.parametrize("sampled", [False, True], ids=["", "sampled"])
@pytest.mark.parametrize("name", ["assistant_model", "prompt_lookup_num_tokens", "streamer"])
def test_what_follows_one_reply_refuses_beams(name: str, sampled: bool) -> None:
    values = {"assistant_model": tiny_model(), "prompt_lookup_num_tokens": 2, "streamer": object()}
    with pytest.raises(ValueError, match=f"^{name} with 2 beams is not possible; .* num_beams=1"):
        generated(tiny_model(), num_beams=2, do_sample=sampled, **{name: values[name]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder_repetition_penalty", 1.5),
        ("encoder_no_repeat_ngram_size", 2),
        ("watermarking_config", WatermarkingConfig()),
    ],
)
def test_options_that_need_one_vocabulary(field: str, value: Any) -> None:
    model = tiny_model(share_embeddings=False, decoder_vocab_size=13)
    with pytest.raises(ValueError, match=rf"^{field}=.* is not possible; .* vocabular"):
        generated(model, **{field: value})
    generated(model, encoder_repetition_penalty=1.0, encoder_no_repeat_ngram_size=0)
