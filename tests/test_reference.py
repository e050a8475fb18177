"""The model against `reference_numpy.py`, which was written from the papers."""

import pytest
import torch
from modeling_helpers import (
    GO,
    HOLED,
    LEFT,
    LENGTHS,
    RIGHT,
    SOURCE,
    Settings,
    name_of,
    random_tokens,
    tiny_model,
    variants,
)
from reference_numpy import reference

# what no combination of `variants` has: other depths, widths, bridges, sums, norms, vocabularies
UNEVEN = {"encoder_hidden_size": 5, "encoder_layers": 3, "decoder_layers": 2, "bridge": "linear"}
TWO = {"share_embeddings": False, "decoder_vocab_size": 13}
FURTHER: list[Settings] = [
    {"cell_type": "lstm", "attention": "general", **UNEVEN, "residual": True},
    {"cell_type": "gru", "attention": "concat", **UNEVEN, "layer_norm": True},
    {"cell_type": "lstm", "attention": "additive", **UNEVEN, **TWO, "bidirectional": True},
    {"cell_type": "gru", "attention": "additive", **UNEVEN, "residual": True, "layer_norm": True},
    {"cell_type": "gru", "attention": "none", **UNEVEN, "bidirectional": True},
    {"cell_type": "lstm", "attention": "none", "bridge": "zero", "encoder_layers": 1},
    {"cell_type": "gru", "attention": "dot", "bridge": "zero", "decoder_layers": 3, **TWO},
    {"cell_type": "lstm", "attention": "dot", "residual": True, "layer_norm": True,
     "bidirectional": True, "input_feeding": True, "attention_window": "local-p",
     "encoder_layers": 3, "decoder_layers": 3},
    {"cell_type": "gru", "attention": "general", **UNEVEN, **TWO, "input_feeding": True,
     "attention_window": "local-m", "residual": True},
    {"cell_type": "lstm", "attention": "concat", **UNEVEN, "attention_window": "local-p",
     "bidirectional": True, "input_feeding": True, "layer_norm": True},
    {"cell_type": "lstm", "embedding_size": 8, "tie_word_embeddings": True},
    {"cell_type": "gru", "embedding_size": 8, "tie_word_embeddings": True, **TWO},
    {"cell_type": "gru", "encoder_layers": 1, "decoder_layers": 1, "attention_window_size": 1,
     "attention_window": "local-p"},
    {"cell_type": "lstm", "attention": "concat", **UNEVEN, "copy": True, "bidirectional": True},
    {"cell_type": "gru", "embedding_size": 8, "tie_word_embeddings": True, "copy": True},
]  # fmt: skip
VARIANTS = variants(bidirectional=True) + FURTHER
LAYOUTS = {"right": RIGHT, "left": LEFT, "holed": HOLED}


def short_name(settings: Settings) -> str:
    return name_of({name: value for name, value in settings.items() if name not in UNEVEN | TWO})


@pytest.mark.parametrize("settings", VARIANTS, ids=short_name)
@torch.no_grad()
def test_the_model_computes_what_the_papers_say(settings: Settings) -> None:
    model = tiny_model(**settings).double()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    words = random_tokens(3, 5, seed=2, vocabulary=model.config.decoder_vocab_size)
    target = torch.cat([torch.full((3, 1), GO), words], dim=1)
    expected = [
        reference(model.config, weights, SOURCE[item, :length].tolist(), target[item].tolist())
        for item, length in enumerate(LENGTHS)
    ]
    for tokens, mask in LAYOUTS.values():
        outputs = model(tokens, mask, decoder_input_ids=target, output_attentions=True)
        for item, (logits, looks) in enumerate(expected):
            close = {"rtol": 0, "atol": 1e-5, "check_dtype": False}
            torch.testing.assert_close(outputs.logits[item], torch.from_numpy(logits), **close)
            if outputs.cross_attentions:
                weights_here = outputs.cross_attentions[0][item, 0][:, mask[item].bool()]
                torch.testing.assert_close(weights_here, torch.from_numpy(looks), **close)


def test_the_variants_cover_each_value_of_each_field() -> None:
    configs = [tiny_model(**settings).config for settings in VARIANTS]
    values = {
        "cell_type": {"lstm", "gru"},
        "bidirectional": {False, True},
        "bridge": {"zero", "copy", "linear"},
        "attention": {"none", "dot", "general", "concat", "additive"},
        "attention_window": {"global", "recent", "local-m", "local-p"},
        "input_feeding": {False, True},
        "residual": {False, True},
        "layer_norm": {False, True},
        "copy": {False, True},
        "share_embeddings": {False, True},
        "tie_word_embeddings": {False, True},
        "encoder_layers": {1, 2, 3},
        "decoder_layers": {1, 2, 3},
    }
    for field, expected in values.items():
        assert {getattr(config, field) for config in configs} == expected, field
