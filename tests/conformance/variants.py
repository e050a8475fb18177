"""Models that must conform. One line more is one model more: its settings on top of `TINY`."""

from typing import Any

Settings = dict[str, Any]

TINY: Settings = {
    "vocab_size": 99,
    "embedding_size": 16,
    "hidden_size": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "attention_window_size": 3,
    "max_source_positions": 12,
}

VARIANTS: dict[str, Settings] = {
    "LstmGeneral": {"attention": "general"},
    "GruAdditive": {"cell_type": "gru", "attention": "additive"},
    "LstmNone": {"attention": "none", "bidirectional": False},
    "LstmFeeding": {"attention_window": "local-p", "input_feeding": True},
    "GruCopy": {
        "cell_type": "gru", "attention": "concat", "attention_window": "recent", "copy": True,
    },
    "LstmUnequal": {
        "bidirectional": True, "encoder_hidden_size": 12, "decoder_layers": 1, "bridge": "linear",
    },
}  # fmt: skip
