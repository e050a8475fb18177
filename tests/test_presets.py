"""Presets: what may be asked for, and that all of ours can be."""

import re
from typing import Any

import pytest
import yaml

from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqConfig
from chatbot.presets import (
    DEFAULT_GENERATION_PRESET,
    GenerationPreset,
    check_names,
    generation_preset,
    generation_presets,
    model_preset,
)


def test_the_ways_of_choosing_a_reply() -> None:
    presets = generation_presets()
    assert next(iter(presets)) == DEFAULT_GENERATION_PRESET == "lively"
    assert presets["lively"] == generation_preset("lively")
    assert presets["lively"].temperature > 0
    assert presets["greedy"].temperature == presets["precise"].temperature == 0
    compared = {name: preset.num_compared for name, preset in presets.items()}
    assert compared == {"lively": 1, "careful": 12, "precise": 4, "greedy": 1}
    assert {name for name, preset in presets.items() if not preset.can_stream} == {
        "careful",
        "precise",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [("careful", "num_candidates=12 cannot stream"), ("precise", "num_beams=4 cannot stream")],
)
def test_what_is_compared_cannot_stream(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}; allowed: 1.$"):
        generation_preset(name).check_stream()
    generation_preset("lively").check_stream()


def test_the_sizes_of_models() -> None:
    names = yaml.safe_load(hub_config_path("model_presets.yaml").read_text("utf-8"))
    assert list(names) == ["tiny", "small", "base"]
    sizes = [RnnSeq2SeqConfig(**model_preset(name)).hidden_size for name in names]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    assert all(RnnSeq2SeqConfig(**model_preset(name)).copy for name in names)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model preset 'huge' is unknown; allowed: tiny, small, "):
        model_preset("huge")
    with pytest.raises(ValueError, match=r"generation preset 'loud' is unknown; allowed: lively, "):
        generation_preset("loud")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 is not possible; allowed: 0 to 5."),
        ({"temperature": float("nan")}, "temperature=nan is not possible"),
        ({"top_p": 0}, "top_p=0 is not possible; allowed: 0.01 to 1."),
        ({"top_p": 1.1}, "top_p=1.1 is not possible"),
        ({"top_k": -1}, "top_k=-1 is not possible"),
        ({"num_beams": 0}, "num_beams=0 is not possible; allowed: 1 to 64."),
        ({"max_new_tokens": 0, "min_new_tokens": 0}, "max_new_tokens=0 is not possible"),
        ({"max_new_tokens": 513}, "max_new_tokens=513 is not possible; allowed: 1 to 512."),
        ({"min_new_tokens": 49}, "min_new_tokens=49 is not possible; allowed: 0 to 48."),
        ({"max_new_tokens": 12.5}, "max_new_tokens=12.5 is not possible; allowed: a whole number."),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1 is not possible"),
        ({"num_beams": 2, "temperature": 1}, "num_beams=2 with temperature=1 is not possible"),
        ({"num_candidates": 0}, "num_candidates=0 is not possible; allowed: 1 to 64."),
        ({"num_candidates": 2}, "num_candidates=2 with temperature=0.0 is not possible"),
        ({"context_weight": 1.5}, "context_weight=1.5 is not possible; allowed: 0 to 1."),
        ({"copy_weight": -1}, "copy_weight=-1 is not possible; allowed: 0 to 1000."),
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GenerationPreset(**values)


def test_the_nearest_right_name_is_told() -> None:
    check_names(["data", "model"], ["model", "data"], "run.yaml")
    with pytest.raises(ValueError, match=r"run\.yaml: unknown key 'modle'; did you mean 'model'\?"):
        check_names(["data", "modle"], ["model", "data", "output"], "run.yaml")
    with pytest.raises(ValueError, match=r"unknown key 5; did you mean"):
        check_names([5], ["model", "data"], "run.yaml")  # type: ignore[list-item]
