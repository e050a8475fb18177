"""Training: a `TrainingRun` through transformers' Seq2SeqTrainer, unchanged."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import Dataset, DatasetDict, concatenate_datasets
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    EarlyStoppingCallback,
    PreTrainedTokenizerFast,
    ProgressCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from chatbot.checkpoints import save_chatbot
from chatbot.data import REPORT_NAME, load_prepared, prepare
from chatbot.decoding import unspoken_tokens
from chatbot.evaluation import Perplexity, measure_perplexity
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.presets import DEFAULT_GENERATION_PRESET, generation_preset, model_preset
from chatbot.training_callbacks import (
    InterruptCallback,
    SampleReplies,
    TimeLimit,
    TrainingProgress,
)
from chatbot.training_run import TrainingRun

RUN_NAME = "run.yaml"
DEFAULT_PROMPTS = ["hi", "what is your name?", "i had a bad day.", "what should i cook tonight?"]


def train(run: TrainingRun, *, resume: bool = False, overwrite: bool = False) -> Perplexity | None:
    """Train, and leave the best model in `run.output`/model.

    Args:
        run: What to train on what, and how.
        resume: Whether to go on from the newest checkpoint of the run.
        overwrite: Whether a finished run in the same folder may be replaced.

    Returns:
        Perplexity on validation; None where the training was interrupted.

    Raises:
        FileExistsError: The run's folder exists, and neither `resume` nor `overwrite` is given.
        ValueError: A setting or the data is not possible.
    """
    folder = run.folder
    checkpoint = _starting_point(folder, resume, overwrite)
    set_seed(run.trainer.get("seed", 42))
    prepared = prepared_data(run, resume)
    data = with_validation(load_prepared(prepared))
    tokenizer = AutoTokenizer.from_pretrained(prepared / "tokenizer")
    settings = json.loads((prepared / REPORT_NAME).read_text("utf-8"))["settings"]
    model = build_model(run, tokenizer, settings["max_source_tokens"])
    print(f"{model.num_parameters() / 1e6:.1f} M parameters, {len(tokenizer)} tokens, ", end="")
    print(f"{len(data['train']):,} replies to learn, {len(data['validation']):,} to validate")

    interrupt = InterruptCallback()
    trainer = _trainer(run, model, tokenizer, data, interrupt)
    if not resume:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of the run that is replaced
    (folder / RUN_NAME).write_text(yaml.safe_dump(vars(run), sort_keys=False), "utf-8")
    with interrupt:
        _train_or_explain(trainer, checkpoint)
    log = json.dumps(trainer.state.log_history, indent=1)
    (folder / "log.json").write_text(log + "\n", "utf-8")
    if interrupt.asked and trainer.state.global_step < trainer.state.max_steps:
        print(f"Stopped and saved. Go on with: chatbot train {_quoted(folder / RUN_NAME)} --resume")
        return None
    save_chatbot(
        model, tokenizer, folder / "model", dtype=getattr(torch, run.save_dtype), overwrite=True
    )
    perplexity = measure_perplexity(model, tokenizer, data["validation"])
    print(f"Validation perplexity: {perplexity}")
    print(f"Chat with it: chatbot chat {_quoted(folder / 'model')}")
    return perplexity


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def prepared_data(run: TrainingRun, reuse: bool = False) -> Path:
    """The folder of examples that a run trains on, prepared if need be."""
    sources = run.data or [str(hub_config_path("sample_conversations"))]
    if len(sources) == 1 and (Path(sources[0]) / REPORT_NAME).is_file():
        return Path(sources[0])
    prepared = run.folder / "data"
    if not (reuse and prepared.is_dir()):
        prepare(sources, prepared, **run.prepare, overwrite=True)
    return prepared


def build_model(
    run: TrainingRun, tokenizer: PreTrainedTokenizerFast, max_source_tokens: int
) -> RnnSeq2SeqForConditionalGeneration:
    """A new model of the run's size for a tokenizer; its `generate()` samples, and ends."""
    settings = dict(run.model)
    sizes = model_preset(settings.pop("preset", "tiny"))
    if settings.get("attention") == "none" or settings.get("decoder_vocab_size"):
        sizes.pop("copy")  # a preset's wish gives way; said outright, it is refused
    known = {"vocab_size": len(tokenizer), "max_source_positions": max_source_tokens}
    try:
        config = RnnSeq2SeqConfig(**{**known, **sizes, **settings})
    except StrictDataclassError as error:  # a value of the wrong kind; ours are ValueErrors
        raise ValueError(f"model: {' '.join(str(error).split())}") from error
    model = RnnSeq2SeqForConditionalGeneration(config)
    preset = generation_preset(DEFAULT_GENERATION_PRESET)
    model.generation_config.update(
        do_sample=True,
        temperature=preset.temperature,
        top_p=preset.top_p,
        top_k=0,
        no_repeat_ngram_size=preset.no_repeat_ngram_size,
        min_new_tokens=preset.min_new_tokens,
        max_length=None,
        max_new_tokens=preset.max_new_tokens,
        suppress_tokens=unspoken_tokens(tokenizer),
    )
    return model


def with_validation(data: DatasetDict) -> DatasetDict:
    """The same data, with the last tenth of the dialogues held out where none are for validation.

    One dialogue in fifty is, by its hash; a small collection may have no such one.
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


def weigh_sources(examples: Dataset, weights: dict[str, int]) -> Dataset:
    """Examples of each source as often as its weight says (default once)."""
    unknown = set(weights) - set(examples.unique("source"))
    if unknown:
        raise ValueError(
            f"source_weights: no source is named {', '.join(sorted(unknown))}; "
            f"there are {', '.join(sorted(examples.unique('source')))}."
        )
    if not weights:
        return examples
    sources = np.array(examples["source"])
    parts = [examples.select(np.flatnonzero(~np.isin(sources, list(weights))))]
    for source, weight in weights.items():
        parts += [examples.select(np.flatnonzero(sources == source))] * weight
    weighed = concatenate_datasets(parts)
    if not len(weighed):
        raise ValueError("source_weights: no example is left to learn from.")
    return weighed


def _trainer(
    run: TrainingRun,
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    data: DatasetDict,
    interrupt: InterruptCallback,
) -> Seq2SeqTrainer:
    gpu = torch.cuda.is_available()
    machine = {"use_cpu": not gpu, "dataloader_pin_memory": gpu}
    checkpoints = str(run.folder / "checkpoints")
    try:
        arguments = Seq2SeqTrainingArguments(checkpoints, **{**machine, **run.trainer})
    except TypeError as error:
        raise ValueError(f"trainer: {error}") from error
    callbacks: list[TrainerCallback] = [
        interrupt,
        SampleReplies(tokenizer, run.prompts or DEFAULT_PROMPTS),
    ]
    if run.trainer["eval_strategy"] != "no":
        callbacks.append(EarlyStoppingCallback(run.patience))
    if run.max_minutes is not None:
        callbacks.append(TimeLimit(run.max_minutes))
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=weigh_sources(data["train"], run.source_weights),
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        # lengths in eights: fewer shapes, so that memory is found again instead of asked for anew
        data_collator=DataCollatorForSeq2Seq(tokenizer, model, pad_to_multiple_of=8),
        callbacks=callbacks,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(TrainingProgress())
    return trainer


def _train_or_explain(trainer: Seq2SeqTrainer, checkpoint: str | None) -> None:
    """Train. Where a checkpoint cannot be written, its half goes, and the OSError says so."""
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except (OSError, RuntimeError, SafetensorError) as error:
        folder = Path(trainer.args.output_dir)
        if not _discard_unfinished(folder):
            raise
        raise OSError(
            f"{folder}: a checkpoint could not be saved ({error}). Those before it are whole: "
            f"make room, then: chatbot train {_quoted(folder.parent / RUN_NAME)} --resume"
        ) from error


def _discard_unfinished(checkpoints: Path) -> bool:
    """Remove checkpoints that were not written to the end. Returns whether there were any."""
    halves = [folder for folder in checkpoints.glob("checkpoint-*") if not _is_whole(folder)]
    for half in halves:
        shutil.rmtree(half)
    return bool(halves)


def _is_whole(checkpoint: Path) -> bool:
    try:  # the Trainer writes its state last
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _starting_point(folder: Path, resume: bool, overwrite: bool) -> str | None:
    """The checkpoint to go on from. Raises FileExistsError where a run would be overwritten."""
    checkpoints = folder / "checkpoints"
    if resume:
        _discard_unfinished(checkpoints)
        newest = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        if newest is None:
            raise ValueError(f"--resume: {checkpoints} holds no checkpoint to go on from.")
        return newest
    others = folder.is_dir() and any(entry.name != "data" for entry in folder.iterdir())
    if others and not overwrite:
        raise FileExistsError(f"{folder} exists; go on with --resume, or replace with --overwrite.")
    if others and not (folder / RUN_NAME).is_file():
        raise FileExistsError(f"{folder} has no {RUN_NAME}, so --overwrite does not replace it.")
    folder.mkdir(parents=True, exist_ok=True)
    return None
