"""Saved models: found by the Auto classes, loaded without the package, without a warning."""

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from modeling_helpers import (
    RIGHT,
    SOURCE,
    Settings,
    name_of,
    random_tokens,
    replies_without_the_package,
    tiny_model,
)
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqModel

SAVED: list[Settings] = [
    {"cell_type": "lstm", "attention": "general", "embedding_size": 8, "tie_word_embeddings": True},
    {"cell_type": "gru", "attention": "additive", "bidirectional": True, "bridge": "linear"},
    {"cell_type": "lstm", "attention": "concat", "attention_window": "local-p",
     "share_embeddings": False, "decoder_vocab_size": 13, "layer_norm": True},
    {"cell_type": "gru", "attention": "dot", "embedding_size": 8, "tie_word_embeddings": True,
     "share_embeddings": False, "decoder_vocab_size": 13, "input_feeding": True},
    {"cell_type": "lstm", "attention": "general", "copy": True},
]  # fmt: skip
TARGET = random_tokens(3, 4, vocabulary=13)
PARTS = ("attention", "cache", "configuration", "copying", "dialogues", "generation")
PARTS += ("modeling", "products", "quantization", "recurrent")


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What transformers and `warnings` say while a test runs."""
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, collector = logging.getLogger("transformers"), Collector(logging.WARNING)
    logger.addHandler(collector)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    logger.removeHandler(collector)
    assert not caught


@pytest.mark.parametrize("settings", SAVED, ids=name_of)
def test_a_saved_model_is_loaded_whole_and_silently(
    settings: Settings, tmp_path: Path, messages: list[str]
) -> None:
    model = tiny_model(**settings)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert messages == []
    assert not any(info.values())
    assert type(loaded) is RnnSeq2SeqForConditionalGeneration
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    expected = model(*RIGHT, decoder_input_ids=TARGET).logits
    assert torch.equal(loaded(*RIGHT, decoder_input_ids=TARGET).logits, expected)


def test_only_safetensors_and_code_are_written(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    code = {f"{part}_rnn_seq2seq.py" for part in PARTS}
    assert {path.name for path in tmp_path.iterdir()} == code | {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "rnn_seq2seq"
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModelForSeq2SeqLM"}


@pytest.mark.parametrize("settings", SAVED, ids=name_of)
def test_a_tied_matrix_is_written_once(settings: Settings, tmp_path: Path) -> None:
    tiny_model(**settings).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert ("lm_head.weight" in names) != settings.get("tie_word_embeddings", False)
    assert ("model.decoder.embed_tokens.weight" in names) == ("decoder_vocab_size" in settings)


def test_the_auto_classes_know_the_model(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is RnnSeq2SeqConfig
    bare = AutoModel.from_pretrained(tmp_path)
    assert type(bare) is RnnSeq2SeqModel
    with torch.no_grad():
        vectors = bare(*RIGHT, decoder_input_ids=TARGET).last_hidden_state
        expected = model(*RIGHT, decoder_input_ids=TARGET).logits
        torch.testing.assert_close(model.lm_head(vectors), expected)


@pytest.mark.parametrize("settings", SAVED, ids=name_of)
def test_half_precision_is_kept(settings: Settings, tmp_path: Path) -> None:
    model = tiny_model(**settings).bfloat16()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    expected = model(*RIGHT, decoder_input_ids=TARGET).logits
    assert torch.equal(loaded(*RIGHT, decoder_input_ids=TARGET).logits, expected)
    whole = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float32)
    close = {"rtol": 0, "atol": 0.3}
    wide = whole(*RIGHT, decoder_input_ids=TARGET).logits
    torch.testing.assert_close(expected.float(), wide, **close)
    for beams in (1, 3):
        assert loaded.generate(SOURCE, max_new_tokens=4, num_beams=beams).shape[0] == 3


def test_a_resized_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = tiny_model(embedding_size=8, tie_word_embeddings=True)
    model.resize_token_embeddings(25)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert loaded.config.decoder_vocab_size == 25
    expected = model(*RIGHT, decoder_input_ids=TARGET).logits
    assert torch.equal(loaded(*RIGHT, decoder_input_ids=TARGET).logits, expected)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"format_version": 2}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"format_version=2 .* newer package"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("settings", SAVED[3:], ids=name_of)
def test_a_fresh_process_without_the_package(settings: Settings, tmp_path: Path) -> None:
    model = tiny_model(**settings)
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = [model.generate(SOURCE, **options, num_beams=n).tolist() for n in (1, 3)]
    model.save_pretrained(tmp_path / "model")
    assert replies_without_the_package(tmp_path / "model", tmp_path / "again", options) == expected
    # saved there, it carries its code on
    written = sorted(path.name for path in (tmp_path / "again").iterdir())
    assert written == sorted(path.name for path in (tmp_path / "model").iterdir())
