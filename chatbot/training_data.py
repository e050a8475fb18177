"""What a training run learns from and is validated on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import PreTrainedTokenizerFast

from chatbot.data import REPORT_NAME, load_prepared, prepare
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.training_run import TrainingRun

Chatbot = tuple[RnnSeq2SeqForConditionalGeneration, PreTrainedTokenizerFast]


def prepared_data(
    run: TrainingRun, start: Chatbot | None = None, reuse: bool = False
) -> dict[str, Path]:
    """The folders of examples that a run learns from, prepared if need be: `data`, and `samples`.

    A continued model reads with its own tokenizer, and contexts of the length it knows.
    """
    samples = hub_config_path("sample_conversations")
    sources = run.data or [str(samples)]
    folders = {"data": run.folder / "data"}
    options = dict(run.prepare)
    if start is not None:
        length = {"max_source_tokens": start[0].config.max_source_positions}
        options = {**length, **options, "tokenizer": start[1]}
    if not run.hold_out:  # questions of one kind are near one another
        near = {"near_duplicates": False, "leaks": False}
        options["clean"] = {**near, **run.prepare.get("clean", {})}
    if len(sources) == 1 and (Path(sources[0]) / REPORT_NAME).is_file():
        folders["data"] = Path(sources[0])
    elif not (reuse and folders["data"].is_dir()):
        prepare(sources, folders["data"], **options, overwrite=True)
    if start is not None:
        if settings_of(folders["data"]).get("task", "chat") != "chat":
            raise ValueError(
                f"start={run.start!r} is not possible with pairs (task seq2seq), of which no chat "
                "goes on; allowed: start=scratch."
            )
        folders["samples"] = run.folder / "samples"
        settings = settings_of(folders["data"])
        lengths = {name: settings[name] for name in ("max_source_tokens", "max_target_tokens")}
        prepare([samples], folders["samples"], tokenizer=start[1], **lengths, overwrite=True)
    return folders


def learned_and_validated(run: TrainingRun, folders: dict[str, Path]) -> DatasetDict:
    """The examples to learn, and those to validate on.

    A continued model is validated on the sample conversations too, which show what it forgets.
    """
    data = load_prepared(folders["data"])
    if "samples" not in folders:
        return with_validation(data)
    parts = [data["train"]] if run.hold_out else [part for part in data.values() if len(part)]
    held_out = [data["validation"]] if run.hold_out else []
    samples = load_prepared(folders["samples"])["validation"]
    return DatasetDict(
        train=concatenate_datasets(parts), validation=concatenate_datasets([*held_out, samples])
    )


def settings_of(prepared: Path) -> dict[str, Any]:
    """What a folder was prepared with."""
    settings: dict[str, Any] = json.loads((prepared / REPORT_NAME).read_text("utf-8"))["settings"]
    return settings


def with_validation(data: DatasetDict) -> DatasetDict:
    """The same data, with the last tenth of the dialogues held out where none are for validation.

    Two dialogues in fifty are, by their hash; a small collection may have no such one.
    """
    if len(data["validation"]):
        return data
    train = data["train"]
    dialogues = sorted(train.unique("dialogue"))
    if len(dialogues) < 2:
        raise ValueError(
            "data: one dialogue cannot be both learned and validated; give two or more."
        )
    first = dialogues[-max(1, len(dialogues) // 10)]
    held_out = np.array(train["dialogue"]) >= first
    return DatasetDict(
        {
            **data,
            "train": train.select(np.flatnonzero(~held_out)),
            "validation": train.select(np.flatnonzero(held_out)),
        }
    )


def weigh_sources(examples: Dataset, weights: dict[str, float], seed: int) -> Dataset:
    """Examples of each source as often as its weight says (default once).

    The fraction of a weight is that of the dialogues that are taken once more, drawn by `seed`.
    """
    unknown = set(weights) - set(examples.unique("source"))
    if unknown:
        raise ValueError(
            f"source_weights: no source is named {', '.join(sorted(unknown))}; "
            f"there are {', '.join(sorted(examples.unique('source')))}."
        )
    if not weights:
        return examples
    columns = examples.with_format("numpy", columns=["source", "dialogue"])
    sources, dialogues = columns["source"][:], columns["dialogue"][:]
    chosen = [np.flatnonzero(~np.isin(sources, list(weights)))]
    for source, weight in sorted(weights.items()):
        own = np.flatnonzero(sources == source)
        chosen += [own] * int(weight)
        drawn = np.random.default_rng(seed).random(dialogues[own].max() + 1) < weight % 1
        chosen.append(own[drawn[dialogues[own]]])
    weighed = examples.select(np.concatenate(chosen))
    if not len(weighed):
        raise ValueError("source_weights: no example is left to learn from.")
    return weighed
