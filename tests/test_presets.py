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
    assert presets["lively"].temperature > presets["careful"].temperature > 0
    assert presets["greedy"].temperature == presets["precise"].temperature == 0
    assert {name for name, preset in presets.items() if not preset.can_stream} == {"precise"}


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
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1 is not possible"),
        ({"num_beams": 2, "temperature": 1}, "num_beams=2 with temperature=1 is not possible"),
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
