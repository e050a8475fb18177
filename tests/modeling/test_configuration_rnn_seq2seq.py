"""What the configuration allows, and what its refusals say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from modeling_helpers import random_tokens, tiny_config, tiny_model

from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration

# settings, and what the message must hold: field and value, then what is allowed
IMPOSSIBLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "dot, widths differ": (
        {"attention": "dot", "encoder_hidden_size": 5, "bridge": "zero"},
        "attention='dot'",
        "general or concat where widths differ (encoder output 5, hidden_size 8)",
    ),
    "dot, both directions too wide": (
        {"attention": "dot", "encoder_hidden_size": 8, "bidirectional": True, "bridge": "zero"},
        "attention='dot'",
        "general or concat where widths differ (encoder output 16, hidden_size 8)",
    ),
    "local-m with additive": (
        {"attention": "additive", "attention_window": "local-m"},
        "attention_window='local-m'",
        "global or recent",
    ),
    "local-p with additive": (
        {"attention": "additive", "attention_window": "local-p"},
        "attention_window='local-p'",
        "global or recent",
    ),
    "recent without attention": (
        {"attention": "none", "attention_window": "recent"},
        "attention_window='recent'",
        "global",
    ),
    "local-p without attention": (
        {"attention": "none", "attention_window": "local-p"},
        "attention_window='local-p'",
        "global",
    ),
    "input feeding without attention": (
        {"attention": "none", "input_feeding": True},
        "input_feeding=True",
        "False with attention 'none'",
    ),
    "input feeding with additive": (
        {"attention": "additive", "input_feeding": True},
        "input_feeding=True",
        "False with attention 'additive'",
    ),
    "copy bridge, depths differ": (
        {"bridge": "copy", "encoder_layers": 1},
        "bridge='copy'",
        "linear or zero where depths differ (encoder_layers 1, decoder_layers 2)",
    ),
    "copy bridge, widths differ": (
        {"bridge": "copy", "encoder_hidden_size": 5},
        "bridge='copy'",
        "linear or zero where widths differ (encoder output 5, hidden_size 8)",
    ),
    "tying, widths differ": (
        {"tie_word_embeddings": True},
        "tie_word_embeddings=True",
        "False where the two widths differ (embedding_size 6, hidden_size 8)",
    ),
    "one embedding, two vocabularies": (
        {"decoder_vocab_size": 7},
        "share_embeddings=True",
        "False with two vocabularies (vocab_size 19, decoder_vocab_size 7)",
    ),
    "a later format": ({"format_version": 2}, "format_version=2", "1;"),
}
SIZES = [
    "vocab_size",
    "decoder_vocab_size",
    "embedding_size",
    "hidden_size",
    "encoder_hidden_size",
    "encoder_layers",
    "decoder_layers",
    "attention_window_size",
]
DROPOUTS = ["dropout", "embedding_dropout", "recurrent_dropout"]
CHOICES = {
    "cell_type": ("lstm", "gru"),
    "bridge": ("zero", "copy", "linear"),
    "attention": ("none", "dot", "general", "concat", "additive"),
    "attention_window": ("global", "recent", "local-m", "local-p"),
}


@pytest.mark.parametrize(("changes", "refused", "allowed"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_combination_that_makes_no_sense_is_refused(
    changes: dict[str, Any], refused: str, allowed: str
) -> None:
    with pytest.raises(ValueError, match="is not possible; allowed: ") as error:
        tiny_config(**changes)
    assert str(error.value).startswith(refused)
    assert allowed in str(error.value).partition("allowed: ")[2]


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("field", SIZES)
def test_a_size_below_one_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field}={value} .* at least 1"):
        tiny_config(**{field: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
@pytest.mark.parametrize("field", DROPOUTS)
def test_a_dropout_outside_its_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}={value} .* a share from 0 up to"):
        tiny_config(**{field: value})


@pytest.mark.parametrize("field", CHOICES)
def test_an_unknown_choice_names_the_allowed_ones(field: str) -> None:
    with pytest.raises(StrictDataclassFieldValidationError) as error:
        tiny_config(**{field: "fancy"})
    message = str(error.value)
    assert field in message
    assert "fancy" in message
    assert all(choice in message for choice in CHOICES[field])


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_size", "512"), ("bidirectional", "yes"), ("dropout", "0.1")]
)
def test_a_wrong_type_is_refused(field: str, value: str) -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match=field):
        tiny_config(**{field: value})


@pytest.mark.parametrize("field", CHOICES)
def test_every_choice_of_the_table_is_possible(field: str) -> None:
    for choice in CHOICES[field]:
        assert getattr(tiny_config(**{field: choice}), field) == choice


def test_a_round_trip_keeps_every_field(tmp_path: Path) -> None:
    config = tiny_config(
        decoder_vocab_size=31,
        encoder_hidden_size=5,
        encoder_layers=3,
        cell_type="gru",
        bidirectional=True,
        bridge="linear",
        attention="concat",
        attention_window="local-p",
        attention_window_size=4,
        input_feeding=True,
        residual=True,
        layer_norm=True,
        dropout=0.2,
        embedding_dropout=0.3,
        recurrent_dropout=0.4,
        share_embeddings=False,
        max_source_positions=33,
        initializer_range=0.02,
    )
    config.save_pretrained(tmp_path)
    assert RnnSeq2SeqConfig.from_pretrained(tmp_path).to_dict() | {"_name_or_path": ""} == {
        **config.to_dict(),
        "_name_or_path": "",
    }


def test_the_defaults_of_the_design() -> None:
    config = RnnSeq2SeqConfig()
    assert config.model_type == "rnn_seq2seq"
    assert not config.input_feeding
    assert not config.bidirectional
    assert config.format_version == 1
    assert config.decoder_vocab_size == config.vocab_size
    assert config.is_encoder_decoder


def test_the_encoder_is_as_wide_as_the_decoder_unless_told() -> None:
    assert tiny_config().encoder_hidden_size == 8
    assert tiny_config(bidirectional=True).encoder_hidden_size == 4
    assert tiny_config(bidirectional=True).memory_size == 8
    wide = tiny_config(bidirectional=True, encoder_hidden_size=5, bridge="linear")
    assert wide.memory_size == 10


@pytest.mark.parametrize("context", [256, 512, 1024])
@pytest.mark.parametrize("embedding", [200, 300])
def test_the_sizes_of_the_articles_are_plain_settings(embedding: int, context: int) -> None:
    config = RnnSeq2SeqConfig(
        vocab_size=50,
        embedding_size=embedding,
        hidden_size=context,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = RnnSeq2SeqForConditionalGeneration(config)
    tokens = torch.ones(1, 3, dtype=torch.long, device="meta")
    outputs = model.model(tokens, decoder_input_ids=tokens)
    assert model.model.encoder.embed_tokens.embedding_dim == embedding
    assert outputs.last_hidden_state.shape == (1, 3, context)


def test_depth_and_width_may_differ_on_the_two_sides() -> None:
    model = tiny_model(
        encoder_layers=3, decoder_layers=1, encoder_hidden_size=5, bidirectional=True,
        bridge="linear",
    )  # fmt: skip
    tokens = random_tokens(2, 4)
    assert model(tokens, decoder_input_ids=tokens).logits.shape == (2, 4, 19)
