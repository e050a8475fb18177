"""Chatbots on disk: a model and its tokenizer in one folder, laid out as a Hub repository."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from chatbot.folders import whole_folder
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration


def load_chatbot(
    folder: Path | str | None = None,
) -> tuple[RnnSeq2SeqForConditionalGeneration, PreTrainedTokenizerFast]:
    """Load a model, in float32 and ready to answer, and its tokenizer. None: the shipped ones.

    Raises:
        FileNotFoundError: No such folder, or a file is missing in it.
        ValueError: The folder holds a model of another architecture, or a file is broken.
    """
    folder = hub_config_path("pretrained") if folder is None else Path(folder)
    _check_folder(folder)
    with _blaming(folder / "config.json"):
        config = RnnSeq2SeqConfig.from_pretrained(folder)
    with _blaming(folder / "model.safetensors"):
        model = RnnSeq2SeqForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True
        )
    with _blaming(folder / "tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer


def save_chatbot(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write a model and its tokenizer, whole or not at all.

    Raises:
        FileExistsError: The folder exists and `overwrite` is false, or it holds no model.
        OSError: The disk is full or not writable; what was there before stays.
    """
    with whole_folder(folder, overwrite=overwrite, mark="config.json") as built:
        copy.deepcopy(model).to(dtype).save_pretrained(built)
        tokenizer.save_pretrained(built)


def _check_folder(folder: Path) -> None:
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
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} has no model.safetensors: the weights are missing.")
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no tokenizer.json: save the tokenizer beside the model "
            "(tokenizer.save_pretrained)."
        )


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Each library has errors of its own for a broken file: all become a ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
