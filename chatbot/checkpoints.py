"""Chatbots on disk: a model and its tokenizer in one folder, laid out as a Hub repository.

A model of two vocabularies has two tokenizers: the target's lies in `target_tokenizer/`.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from chatbot.folders import whole_folder
from chatbot.hub_download import download_model, is_hub_name
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import TARGET_TOKENIZER

SizeField = Literal["vocab_size", "decoder_vocab_size"]
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # whole, or in shards


def load_chatbot(
    folder: Path | str | None = None, *, revision: str | None = None, token: str | None = None
) -> tuple[RnnSeq2SeqForConditionalGeneration, PreTrainedTokenizerFast]:
    """Load a model, in float32 or int8 and ready to answer, and its tokenizer.

    A second tokenizer is left to `load_target_tokenizer`.

    Args:
        folder: A folder, or a model of the Hub: `owner/name`, or `owner/name@revision`. None: the
            shipped model.
        revision: A branch, tag or commit of it.
        token: For a private one. None: that of `hf auth login` or of HF_TOKEN.

    Raises:
        FileNotFoundError: No such folder or model, or a file is missing in it.
        ValueError: The folder holds a model of another architecture, a file is broken, or a
            tokenizer has more tokens than the model.
    """
    folder = _model_folder(folder, revision, token)
    config = _load_config(folder)
    tokenizers = _load_tokenizers(folder, config)
    with _blaming(_weights(folder)):
        model = RnnSeq2SeqForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True
        )
    return model.eval(), tokenizers[0]


def load_target_tokenizer(
    folder: Path | str | None = None, *, revision: str | None = None, token: str | None = None
) -> PreTrainedTokenizerFast:
    """Load the tokenizer of what a model writes: where it has one vocabulary, its only tokenizer.

    Raises:
        FileNotFoundError, ValueError: As `load_chatbot`.
    """
    folder = _model_folder(folder, revision, token)
    return _load_tokenizers(folder, _load_config(folder))[-1]


def save_chatbot(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write a model and its tokenizer, whole or not at all.

    Args:
        target_tokenizer: That of what the model writes, where it has two vocabularies.
        dtype: Of the weights; those of an int8 model stay as they are.

    Raises:
        FileExistsError: The folder exists and `overwrite` is false, or it holds no model.
        OSError: The disk is full or not writable; what was there before stays.
        ValueError: The tokenizers do not fit the model.
    """
    _check_size("tokenizer", tokenizer, model.config, "vocab_size")
    if target_tokenizer is not None:
        _check_size("target_tokenizer", target_tokenizer, model.config, "decoder_vocab_size")
    _check_target(target_tokenizer, model.config)
    with whole_folder(folder, overwrite=overwrite, mark="config.json") as built:
        copy.deepcopy(model).to(dtype).save_pretrained(built)
        tokenizer.save_pretrained(built)
        if target_tokenizer is not None:
            target_tokenizer.save_pretrained(built / TARGET_TOKENIZER)


def _model_folder(folder: Path | str | None, revision: str | None, token: str | None) -> Path:
    if folder is None:
        return hub_config_path("pretrained")
    if not Path(folder).exists() and is_hub_name(str(folder)):
        return download_model(str(folder), revision, token)
    return Path(folder)


def _load_config(folder: Path) -> RnnSeq2SeqConfig:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such model folder.")
    if not (folder / "config.json").is_file():
        found = "; it holds model/" if (folder / "model").is_dir() else ""
        raise FileNotFoundError(f"{folder} has no config.json: not a model folder{found}.")
    with _blaming(folder / "config.json"):
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    if kind != RnnSeq2SeqConfig.model_type:
        raise ValueError(
            f"{folder} holds a model of type {kind!r}; allowed: {RnnSeq2SeqConfig.model_type!r}."
        )
    with _blaming(folder / "config.json"):
        return RnnSeq2SeqConfig.from_pretrained(folder)


def _weights(folder: Path) -> Path:
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} has no model.safetensors: the weights are missing.")
    return found[0]


def _load_tokenizers(folder: Path, config: RnnSeq2SeqConfig) -> list[PreTrainedTokenizerFast]:
    """The tokenizer, and the target's where there is one."""
    tokenizers = [_load_tokenizer(folder, config, "vocab_size")]
    target = folder / TARGET_TOKENIZER
    if target.is_dir():
        tokenizers.append(_load_tokenizer(target, config, "decoder_vocab_size"))
    elif config.decoder_vocab_size != config.vocab_size:
        raise FileNotFoundError(
            f"{folder} has no {TARGET_TOKENIZER}/, but its model has two vocabularies: save the "
            "tokenizer of what it writes too (save_chatbot(..., target_tokenizer=...))."
        )
    return tokenizers


def _load_tokenizer(
    folder: Path, config: RnnSeq2SeqConfig, size: SizeField
) -> PreTrainedTokenizerFast:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no tokenizer.json: save the tokenizer beside the model "
            "(tokenizer.save_pretrained)."
        )
    with _blaming(file):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    _check_size(str(file), tokenizer, config, size)
    return tokenizer


def _check_size(
    name: str, tokenizer: PreTrainedTokenizerFast, config: RnnSeq2SeqConfig, size: SizeField
) -> None:
    known = getattr(config, size)
    if len(tokenizer) > known:
        raise ValueError(
            f"{name} has {len(tokenizer)} tokens, more than the model with {size}={known} knows; "
            f"allowed: at most {known}."
        )


def _check_target(tokenizer: PreTrainedTokenizerFast | None, config: RnnSeq2SeqConfig) -> None:
    two = config.decoder_vocab_size != config.vocab_size
    if tokenizer is None and two:
        raise ValueError(
            "target_tokenizer=None is not possible for a model of two vocabularies; allowed: the "
            "tokenizer of what it writes."
        )
    if tokenizer is not None and config.share_embeddings:
        raise ValueError(
            "target_tokenizer is not possible for a model with share_embeddings=True, which has "
            "one vocabulary; allowed: None."
        )


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Each library has errors of its own for a broken file: all become a ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
