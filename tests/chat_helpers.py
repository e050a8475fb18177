"""A small random chatbot on real words, and a few of our sample conversations to train it on."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from modeling_helpers import tiny_model
from transformers import PreTrainedTokenizerFast

from chatbot.data import Message, find_files, read_dialogues
from chatbot.data.splits import dialogue_digest, split_of
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import train_tokenizer

Chatbot = tuple[RnnSeq2SeqForConditionalGeneration, PreTrainedTokenizerFast]

BYTES = slice(6, 262)  # tokens that are no whole letters: a random model would say nothing else
NEVER = -30.0


@cache
def sample_dialogues() -> list[list[Message]]:
    """The project's own conversations."""
    files = find_files(hub_config_path("sample_conversations"))
    return [record["messages"] for file in files for _, record in read_dialogues(file.path)]


@cache
def sample_tokenizer() -> PreTrainedTokenizerFast:
    """Six hundred tokens, from the first hundred conversations."""
    texts = (message["content"] for turns in sample_dialogues()[:100] for message in turns)
    return train_tokenizer(texts, vocab_size=600)


def make_chatbot(end_bias: float = 3.0, **settings: object) -> Chatbot:
    """A model of random weights that babbles in whole words, and its tokenizer.

    Args:
        end_bias: How likely `<end>` is; NEVER: no reply ends by itself.
        settings: Fields of the configuration.
    """
    tokenizer = sample_tokenizer()
    sizes = {"hidden_size": 16, "embedding_size": 12, "max_source_positions": 96}
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
    }
    model = tiny_model(**{"attention": "general", **sizes, **ids, **settings})
    with torch.no_grad():
        model.lm_head.bias[BYTES] = NEVER
        model.lm_head.bias[tokenizer.eos_token_id] = end_bias
    return model, tokenizer


def make_fixed_chatbot(probabilities: dict[str, float]) -> Chatbot:
    """A chatbot that says each token with a fixed probability, whatever has been said."""
    model, tokenizer = make_chatbot()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.fill_(-60.0)
        for token, probability in probabilities.items():
            index = tokenizer.convert_tokens_to_ids(token)
            assert index != tokenizer.unk_token_id, token
            model.lm_head.bias[index] = torch.tensor(probability).log()
    return model, tokenizer


def write_dialogues(path: Path, dialogues: Iterable[Sequence[Message]]) -> Path:
    """A file of canonical records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"messages": list(messages)}) for messages in dialogues]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def few_dialogues(train: int = 24, held_out: int = 2) -> list[list[Message]]:
    """Sample conversations: so many that are trained on, and a few of each other split."""
    by_split: dict[str, list[list[Message]]] = {"train": [], "validation": [], "test": []}
    for messages in sample_dialogues():
        by_split[split_of(dialogue_digest(messages))].append(messages)
    return by_split["train"][:train] + by_split["validation"][:held_out] + by_split["test"][:1]
