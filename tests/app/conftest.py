"""A small random model for the app: it says nonsense, but it says it through the real code."""

from collections.abc import Callable

import pytest
import torch
from modeling_helpers import tiny_model

from chatbot.app import strings
from chatbot.app.conversation import Bot
from chatbot.tokenization import train_tokenizer

MakeBot = Callable[..., Bot]


@pytest.fixture(scope="session")
def make_bot() -> MakeBot:
    """A bot with these settings whose replies never end by themselves."""
    tokenizer = train_tokenizer([*strings.EXAMPLES, "the quick brown fox, a lazy dog"] * 3)

    def make(**settings: object) -> Bot:
        model = tiny_model(
            vocab_size=len(tokenizer),
            decoder_vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=tokenizer.bos_token_id,
            **settings,
        )
        with torch.no_grad():
            model.lm_head.weight[:256].zero_()  # words, and no halves of letters
            model.lm_head.bias[:256] = -30.0
        return Bot(model, tokenizer)

    return make


@pytest.fixture(scope="session")
def bot(make_bot: MakeBot) -> Bot:
    return make_bot(attention="general")
