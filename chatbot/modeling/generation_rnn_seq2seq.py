"""What `generate()` needs of a recurrent model, and which of its options cannot apply."""

import math
from copy import copy
from typing import Any, NoReturn

from torch import Tensor
from transformers import GenerationMixin, LogitsProcessorList, PreTrainedConfig
from transformers.generation import CandidateGenerator, GenerationConfig, GenerationMode
from transformers.generation.logits_process import (
    LogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
)

from .cache_rnn_seq2seq import RnnSeq2SeqCache

# Options that cannot apply, by the reason.
_REFUSED = {
    "a recurrent state has one size": "cache_implementation cache_config max_cache_len",
    "a recurrent state is neither compiled nor read in chunks": "compile_config prefill_chunk_size",
    "continuous batching pages keys and values": "continuous_batching_config",
    "all beams run as one batch": "low_memory",
    "transformers has contrastive search as remote code only": "penalty_alpha",
    "transformers has DoLa as remote code only": "dola_layers",
    "transformers has group beams as remote code only": "num_beam_groups diversity_penalty",
    "transformers has constrained beams as remote code only": "constraints force_words_ids",
    "only an assistant_model can guess ahead": "use_mtp speculation_type assistant_early_exit",
    "an assistant speaks in the same tokens": "assistant_lookbehind target_lookbehind",
    "classifier-free guidance runs a decoder without a source": "guidance_scale",
    "it would take a reply that was begun for a source": "token_healing",
}
_TWO_VOCABULARIES = {
    "there are two vocabularies": "encoder_repetition_penalty encoder_no_repeat_ngram_size",
    "its green words are drawn from the source's vocabulary": "watermarking_config",
}
# What leaves an option off beside None; elsewhere 0 or False.
_OFF = {"cache_implementation": "dynamic", "num_beam_groups": 1, "guidance_scale": 1}
_OFF |= {"assistant_lookbehind": 10, "target_lookbehind": 10, "encoder_repetition_penalty": 1}
# Of what `generate()` hands on at each step, what no forward takes.
_NOT_READ = ("labels", "next_sequence_length", "is_first_iteration")


def _refuse(what: str, allowed: str, reason: str) -> NoReturn:
    raise ValueError(f"{what} is not possible; allowed: {allowed} ({reason}).")


def _vocabularies(config: PreTrainedConfig) -> tuple[int, int]:
    """Sizes of the source's and the target's vocabulary of any model."""
    source = config.get_text_config().vocab_size
    return source, config.to_dict().get("decoder_vocab_size") or source


class _Processors(LogitsProcessorList):
    """transformers' own, without a look at each one's signature at each token."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        for processor in self:
            scores = processor(input_ids, scores, **kwargs)
        return scores


class _MinNewTokens(MinNewTokensLengthLogitsProcessor):
    """transformers' own, without a search for the ends in the vocabulary at each token."""

    @classmethod
    def instead(cls, other: LogitsProcessor, vocab_size: int) -> LogitsProcessor:
        """One of these for one of those; an end that is no token stays with transformers."""
        if type(other) is not MinNewTokensLengthLogitsProcessor:
            return other
        ends = other.eos_token_id
        if ends.min() < 0 or ends.max() >= vocab_size:
            return other
        return cls(other.prompt_length_to_skip, other.min_new_tokens, ends)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] - self.prompt_length_to_skip >= self.min_new_tokens:
            return scores
        return scores.index_fill(1, self.eos_token_id, -math.inf)


class RnnSeq2SeqGenerationMixin(GenerationMixin):
    """`generate()` on a recurrent state."""

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict]:
        """Refuse options, whatever they come with, before transformers looks at them."""
        prepared, rest = super()._prepare_generation_config(generation_config, **kwargs)
        asked = vars(prepared) | kwargs  # super() has unset cache_implementation="hybrid"
        two = _TWO_VOCABULARIES if len(set(_vocabularies(self.config))) == 2 else {}
        for reason, names in (_REFUSED | two).items():
            for name in names.split():
                off = _OFF.get(name, 0)
                if asked[name] is not None and asked[name] != off:
                    _refuse(f"{name}={asked[name]!r}", repr(off or None), reason)
        return prepared, rest

    def _validate_generation_mode(
        self, mode: GenerationMode, config: GenerationConfig, others: dict[str, Any]
    ) -> None:
        """Refuse beams where one sequence is followed, and assistants that cannot work."""
        asked = others | vars(config)
        for name in ("assistant_model", "prompt_lookup_num_tokens", "streamer"):
            if asked.get(name) is not None and config.num_beams > 1:
                _refuse(f"{name} with {config.num_beams} beams", "num_beams=1", "it follows one")
        if (assistant := others.get("assistant_model")) is not None:
            own, its = _vocabularies(self.config), _vocabularies(assistant.config)
            if not assistant.config.is_encoder_decoder or its != own:
                what = f"assistant_model={type(assistant).__name__} with vocabularies {its}"
                allowed = f"an encoder-decoder with vocabularies {own}"
                _refuse(what, allowed, "it reads and speaks in the same tokens")
        super()._validate_generation_mode(mode, config, others)

    def init_continuous_batching(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse; `generate_batch` comes here too."""
        _refuse("continuous batching", "generate() with a batch", "it pages keys and values")

    def _get_candidate_generator(self, **given: Any) -> CandidateGenerator:
        source = given["inputs_tensor"]  # -100 stands for tokens where there are encoder_outputs
        unread = source.is_floating_point() or source.min() < 0
        if given["assistant_model"] is not None and unread:
            _refuse("assistant_model without input_ids", "input_ids", "it has its own encoder")
        return GenerationMixin._get_candidate_generator(self._speaker(), **given)

    def _get_logits_processor(
        self, generation_config: GenerationConfig, *args: Any, **kwargs: Any
    ) -> LogitsProcessorList:
        """As in transformers, with one quick processor for `min_new_tokens` instead of two."""
        made = super()._get_logits_processor(generation_config, *args, **kwargs)
        asked, size = generation_config, _vocabularies(self.config)[1]
        return _Processors(
            _MinNewTokens.instead(each, size)
            for each in made
            if not asked.min_new_tokens
            or not isinstance(each, MinLengthLogitsProcessor)
            or each.min_length != asked.min_length
        )

    def compute_transition_scores(self, *args: Any, **kwargs: Any) -> Tensor:
        """As in transformers, which takes `vocab_size` for that of the target."""
        return GenerationMixin.compute_transition_scores(self._speaker(), *args, **kwargs)

    def _speaker(self) -> "RnnSeq2SeqGenerationMixin":
        """A view of this model in which the target's vocabulary is the only one."""
        view = copy(self)
        view.config = copy(self.config)
        view.config.vocab_size = self.config.decoder_vocab_size
        return view

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, past_key_values: RnnSeq2SeqCache | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Leave out what the state has read already: reading it again would advance it twice."""
        read = 0 if past_key_values is None else past_key_values.get_seq_length()
        if read >= (length := input_ids.shape[1]):
            allowed = f"the whole target, {read + 1} tokens or more"
            _refuse(f"decoder_input_ids of length {length}", allowed, f"the cache has read {read}")
        # transformers' own would look up at each token what only other models need
        given = {name: value for name, value in kwargs.items() if name not in _NOT_READ}
        if past_key_values is not None:
            given["past_key_values"] = past_key_values
        return given | {"decoder_input_ids": input_ids[:, read:].contiguous()}

    def _prepare_cache_for_generation(
        self, config: GenerationConfig, model_kwargs: dict, mode: object, batch: int, length: int
    ) -> None:
        """Start a recurrent state where transformers would start a key-value cache."""
        given = model_kwargs.get("past_key_values")
        if given is not None:
            if not isinstance(given, RnnSeq2SeqCache):
                what = f"past_key_values of type {type(given).__name__}"
                _refuse(what, "the RnnSeq2SeqCache that this model returns", "it holds no state")
            rows = batch * max(config.num_beams, config.num_return_sequences)
            if given.batch_size not in (-1, rows):
                what = f"past_key_values of {given.batch_size} rows"
                _refuse(what, f"{rows}; see batch_repeat_interleave", "each sequence has a state")
            given._is_user_defined = True  # transformers may otherwise read a token too many
        elif config.use_cache is not False:
            model_kwargs["past_key_values"] = self.model.decoder.new_cache()
            if config.is_assistant:
                model_kwargs["past_key_values"].activate_past_recording()
