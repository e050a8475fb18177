"""Recurrent encoder-decoder chatbots with attention, native to Hugging Face.

>>> from chatbot import ChatSession
>>> ChatSession.from_pretrained().reply("hello").text  # doctest: +SKIP

The names below are loaded when first used, so that `import chatbot` stays light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ChatSession": "chatbot.chat",
    "ExplainedReply": "chatbot.explain",
    "Reply": "chatbot.chat",
    "GenerationPreset": "chatbot.presets",
    "RnnSeq2SeqConfig": "chatbot.modeling",
    "RnnSeq2SeqForConditionalGeneration": "chatbot.modeling",
    "RnnSeq2SeqModel": "chatbot.modeling",
    "load_chatbot": "chatbot.checkpoints",
    "load_target_tokenizer": "chatbot.checkpoints",
    "prepare": "chatbot.data",
    "push_chatbot": "chatbot.hub",
    "push_data": "chatbot.hub",
    "save_chatbot": "chatbot.checkpoints",
    "train_tokenizer": "chatbot.tokenization",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
