"""Presets: the sizes of models and the ways of choosing a reply, as `hub_config` names them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import yaml

from chatbot.hub_files import hub_config_path

DEFAULT_GENERATION_PRESET = "lively"


@dataclass(frozen=True)
class GenerationPreset:
    """How a reply is chosen.

    Args:
        temperature: Divides the logits before sampling. 0: nothing is sampled.
        top_p: Sampling keeps the likeliest tokens of this joint probability (Holtzman et al. 2020).
        top_k: Sampling keeps this many tokens. 0: all.
        num_beams: Beams of the search; more than 1 excludes sampling, and streaming.
        num_candidates: Replies that are drawn and compared; more than 1 excludes streaming. The
            best has the highest log p(reply | context) - context_weight · log p(reply) +
            length_weight · tokens - copy_weight · copied (see `chatbot.decoding.rank_candidates`).
        context_weight: λ of MMI-antiLM (Li et al. 2016): what fits anything counts less.
        length_weight: γ there, for each token.
        copy_weight: Against saying the user's own sentence back.
        length_penalty: Power of the length that divides a beam's score.
        no_repeat_ngram_size: No run of this many tokens comes twice. 0: any may.
        min_new_tokens: Tokens of the shortest reply.
        max_new_tokens: Tokens of the longest reply, `<end>` among them.

    Raises:
        ValueError: A value out of range; the message names the field and what is allowed.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    num_beams: int = 1
    num_candidates: int = 1
    context_weight: float = 0.0
    length_weight: float = 0.0
    copy_weight: float = 0.0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 3
    min_new_tokens: int = 2
    max_new_tokens: int = 48

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (0, 5),
            "top_p": (0.01, 1),
            "top_k": (0, 1_000_000),
            "num_beams": (1, 64),
            "num_candidates": (1, 64),
            "context_weight": (0, 1),
            "length_weight": (-10, 10),
            "copy_weight": (0, 1000),
            "length_penalty": (-10, 10),
            "no_repeat_ngram_size": (0, 64),
            "min_new_tokens": (0, self.max_new_tokens),
            "max_new_tokens": (1, 512),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}={value!r} is not possible; allowed: {low} to {high}.")
            if type(getattr(type(self), name)) is int and type(value) is not int:
                raise ValueError(f"{name}={value!r} is not possible; allowed: a whole number.")
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError(
                f"num_beams={self.num_beams} with temperature={self.temperature} is not possible; "
                "allowed: beams, or sampling."
            )
        if self.num_candidates > 1 and self.temperature == 0:
            raise ValueError(
                f"num_candidates={self.num_candidates} with temperature={self.temperature} is not "
                "possible: all would be the same; allowed: sampling."
            )

    @property
    def num_compared(self) -> int:
        """Whole replies that are compared, of which the best is given."""
        return max(self.num_beams, self.num_candidates)

    @property
    def can_stream(self) -> bool:
        """What is compared as a whole is not certain before the end."""
        return self.num_compared == 1

    def check_stream(self) -> None:
        """Raises ValueError, naming the field, where nothing can be shown before the end."""
        for name in ("num_beams", "num_candidates"):
            if (value := getattr(self, name)) > 1:
                raise ValueError(f"{name}={value} cannot stream; allowed: 1.")


def model_preset(name: str) -> dict[str, Any]:
    """Fields of `RnnSeq2SeqConfig` for a size. Raises ValueError for an unknown name."""
    return _preset("model_presets.yaml", "model preset", name)


def generation_preset(name: str) -> GenerationPreset:
    """A way of choosing a reply. Raises ValueError for an unknown name or field."""
    values = _preset("generation_presets.yaml", "generation preset", name)
    check_names(values, (field.name for field in fields(GenerationPreset)), f"preset {name!r}")
    return GenerationPreset(**values)


def generation_presets() -> dict[str, GenerationPreset]:
    """All ways of choosing a reply, in the order of their file."""
    return {name: generation_preset(name) for name in _read("generation_presets.yaml")}


def check_names(given: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """Refuse unknown names. The ValueError says which right name is nearest."""
    known = sorted(allowed)
    for name in given:
        if name not in known:
            near = get_close_matches(str(name), known, n=1, cutoff=0.0)
            raise ValueError(f"{where}: unknown key {name!r}; did you mean {near[0]!r}?")


def _preset(file: str, kind: str, name: str) -> dict[str, Any]:
    presets = _read(file)
    if name not in presets:
        raise ValueError(f"{kind} {name!r} is unknown; allowed: {', '.join(presets)}.")
    return presets[name]


def _read(file: str) -> dict[str, dict[str, Any]]:
    presets: dict[str, dict[str, Any]] = yaml.safe_load(hub_config_path(file).read_text("utf-8"))
    return presets
