"""Training: a `TrainingRun` through transformers' Seq2SeqTrainer."""

import copy
import json
import math
import shlex
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, DatasetDict
from safetensors import SafetensorError
from transformers import (
    PreTrainedTokenizerFast,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    TrainerState,
    set_seed,
)
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK, TRAINER_STATE_NAME

from chatbot.checkpoints import save_chatbot
from chatbot.data import load_prepared
from chatbot.evaluation import Perplexity, measure_perplexity
from chatbot.folders import write_atomically
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import Tokenizers, is_chat, load_tokenizers
from chatbot.training_average import WeightAverage
from chatbot.training_callbacks import (
    InterruptCallback,
    SampleReplies,
    StepClock,
    TimeLimit,
    TrainingProgress,
)
from chatbot.training_checkpoints import (
    Divergence,
    ExactTrainer,
    LastStep,
    ManifestCallback,
    NothingLeft,
    Patience,
    damage,
    discard_unfinished,
    newest_whole,
    sole_run,
)
from chatbot.training_curve import CURVE_NAME, draw_learning_curve
from chatbot.training_data import (
    Chatbot,
    learned_and_validated,
    prepared_data,
    settings_of,
    weigh_sources,
)
from chatbot.training_dialogues import ReplyCollator, join_replies
from chatbot.training_model import first_model, load_start, reads_dialogues
from chatbot.training_record import RunRecord
from chatbot.training_retention import Retention, talk_with_itself
from chatbot.training_run import TrainingRun

RUN_NAME = "run.yaml"
JOINED_NAME = ".dialogues.arrow"  # hidden: what a run that was cut off leaves is no run
TALKS_NAME = "talks"
JOINED_CONTEXTS = 3  # contexts of full length that a row of joined replies may be long
OPENINGS = 1500  # of talks, about
REHEARSED = 16  # replies of talks in a step
SPEED_STEPS = 24  # that are timed where a run is to take so many minutes
DEFAULT_PROMPTS = ["hi", "what is your name?", "i had a bad day.", "what should i cook tonight?"]


def train(
    run: TrainingRun, *, resume: bool = False, overwrite: bool = False, command: str | None = None
) -> Perplexity | None:
    """Train, and leave the model in `run.output`/model: the best, or the last, as the run says.

    Under `torchrun` or `accelerate launch` every process calls this; the first writes the files.

    Args:
        run: What to train on what, and how.
        resume: Whether to go on from the newest checkpoint of the run.
        overwrite: Whether a finished run in the same folder may be replaced.
        command: The command line that asked for it, for the run's record.

    Returns:
        Perplexity on validation; None where the training was interrupted.

    Raises:
        FileExistsError: The run's folder exists, and neither `resume` nor `overwrite` is given; or
            another process trains there.
        MemoryError: Out of memory; the message says what to lower.
        OSError: The folder cannot be written to, or the disk is full.
        ValueError: A setting or the data is not possible, or the loss became no number.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())
    if processes.is_main_process:
        _check_folder(run.folder, resume, overwrite)
        run.folder.mkdir(parents=True, exist_ok=True)
    with sole_run(run.folder) if processes.is_main_process else nullcontext():
        return _train(run, resume, RunRecord(run, resume, command), processes)


def _train(
    run: TrainingRun, resume: bool, record: RunRecord, processes: PartialState
) -> Perplexity | None:
    folder, is_first = run.folder, processes.is_main_process
    checkpoint = None
    if resume:
        with processes.main_process_first():  # which removes broken ones
            checkpoint = _starting_point(folder)
    set_seed(run.trainer.get("seed", 42))
    start = load_start(run)
    with processes.main_process_first():
        folders = prepared_data(run, start, resume)
    tokenizers = load_tokenizers(folders["data"] / "tokenizer")
    model = first_model(run, start, tokenizers, folders["data"])
    data = learned_and_validated(run, folders)
    record.describe(folders, data["train"].unique("source"))
    tokens = " and ".join(str(len(tokenizer)) for tokenizer in tokenizers)
    processes.print(
        f"{model.num_parameters() / 1e6:.1f} M parameters, {tokens} tokens, "
        f"{len(data['train']):,} replies to learn, {len(data['validation']):,} to validate"
    )
    seed = run.trainer.get("seed", 42)
    weights = {**settings_of(folders["data"])["weights"], **run.source_weights}
    data["train"] = weigh_sources(data["train"], weights, seed)
    batch = run.trainer["per_device_train_batch_size"]
    if reads_dialogues(run, model, tokenizers[0]):
        longest = JOINED_CONTEXTS * model.config.max_source_positions
        replies = len(data["train"])
        with processes.main_process_first():
            data["train"] = join_replies(
                data["train"], tokenizers[0], longest, folder / JOINED_NAME, anew=is_first
            )
        batch = max(1, round(batch * len(data["train"]) / replies))
        processes.print(f"Dialogues in one pass: {len(data['train']):,} rows, {batch} a batch")
    run_as = _but(run, per_device_train_batch_size=batch)

    retention = None
    if start is not None:
        retention = _retention(run, start, folders["samples"], resume, processes)
        run_as = _but(run_as, **_least_steps(run, len(data["train"]), processes.num_processes))
    interrupt, divergence = InterruptCallback(), Divergence()
    callbacks = [interrupt, divergence]
    trainer = _trainer(run_as, model, tokenizers, data, callbacks)  # refuses what is not possible
    trainer.retention = retention
    if is_first:
        if not resume:
            for name in ("checkpoints", "model", "evaluation"):  # of the run replaced
                shutil.rmtree(folder / name, ignore_errors=True)
        write_atomically(folder / RUN_NAME, yaml.safe_dump(vars(run), sort_keys=False))
        record.write()
    if run.minutes is not None:
        if record.steps is None:
            chosen = [_choose_steps(run_as, trainer, tokenizers, data, record, run.minutes)]
            record.steps = broadcast_object_list(chosen)[0]
            if is_first:
                record.write()
        processes.print(f"{record.steps['max_steps']:,} steps for {run.minutes:g} minutes")
        trainer = _trainer(_but(run_as, **_steps(record)), model, tokenizers, data, callbacks)
        trainer.retention = retention
    if run.average is not None:
        trainer.keep_average(WeightAverage(model, run.average, checkpoint))
    with interrupt:
        _train_or_explain(run, trainer, checkpoint)
    interrupted = interrupt.asked and trainer.state.global_step < trainer.state.max_steps
    perplexity = None
    if not interrupted and divergence.step is None:
        perplexity = measure_perplexity(model, tokenizers[-1], data["validation"])
    if is_first:
        (folder / JOINED_NAME).unlink(missing_ok=True)
        _finish(run, trainer, tokenizers, record, perplexity, divergence.step)
    return perplexity


def _retention(
    run: TrainingRun, start: Chatbot, samples: Path, resume: bool, processes: PartialState
) -> Retention | None:
    """What a continued model is held to; None where nothing is rehearsed or made noisy."""
    if not (run.rehearse or run.noise):
        return None
    if processes.num_processes > 1:
        raise ValueError(
            f"rehearse={run.rehearse}, noise={run.noise} are not possible with "
            f"{processes.num_processes} processes; allowed: 0 and 0, or one process."
        )
    (model, tokenizer), folder = start, run.folder / TALKS_NAME
    seed = run.trainer.get("seed", 42)
    if not (resume and (folder / "dataset_info.json").is_file()):  # which is written last
        print("The model talks with itself, to rehearse what it knows ...")
        contexts = load_prepared(samples)["train"]["input_ids"][:]
        contexts = contexts[:: max(1, len(contexts) // OPENINGS)]
        talks = talk_with_itself(model, tokenizer, contexts, seed)
        shutil.rmtree(folder, ignore_errors=True)
        talks.save_to_disk(folder)
    return Retention(
        copy.deepcopy(model),
        tokenizer,
        Dataset.load_from_disk(folder),
        weight=run.rehearse,
        noise=run.noise or 0.0,
        batch_size=REHEARSED,
        seed=seed,
    )


def _least_steps(run: TrainingRun, examples: int, processes: int) -> dict[str, int]:
    """Steps of a continued model where its epochs would be too few of them."""
    given = run.trainer
    if run.minutes is not None or given.get("max_steps", -1) > 0:
        return {}
    accumulated = given.get("gradient_accumulation_steps", 1) * processes
    every = math.ceil(examples / (given["per_device_train_batch_size"] * accumulated))
    few = every * given["num_train_epochs"] < run.least_steps
    return {"max_steps": run.least_steps} if few else {}


def _finish(
    run: TrainingRun,
    trainer: ExactTrainer,
    tokenizers: Tokenizers,
    record: RunRecord,
    perplexity: Perplexity | None,
    diverged: int | None,
) -> None:
    """Save what was trained, and say how to go on."""
    folder, step, log = run.folder, trainer.state.global_step, trainer.state.log_history
    write_atomically(folder / "log.json", json.dumps(log, indent=1) + "\n")
    if perplexity is None and diverged is None:
        record.end("interrupted", step)
        print(f"Stopped and saved. Go on with: chatbot train {_quoted(folder / RUN_NAME)} --resume")
        return
    dtype = getattr(torch, run.save_dtype)
    target = tokenizers[1] if len(tokenizers) == 2 else None
    kept: dict[str, Any] = {"target_tokenizer": target, "dtype": dtype, "overwrite": True}
    save_chatbot(trainer.model, tokenizers[0], folder / "model", **kept)
    if diverged is not None:
        record.end("diverged", step)
        raise ValueError(
            f"step {diverged}: the loss is not a number any more. {folder / 'model'} holds "
            "the weights that were kept before that. Try a lower trainer.learning_rate (it was "
            f"{run.trainer['learning_rate']:g}) or trainer.max_grad_norm "
            f"({run.trainer['max_grad_norm']:g}), more trainer.warmup_steps, or trainer.bf16 false."
        )
    record.end("finished", step)
    try:
        draw_learning_curve(log, folder / CURVE_NAME)
    except ImportError as error:
        print(f"No {CURVE_NAME}: {error}")
    print(f"Validation perplexity: {perplexity}")
    print(f"Chat with it: chatbot chat {_quoted(folder / 'model')}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _but(run: TrainingRun, **trainer: Any) -> TrainingRun:
    """The run with other settings of the Trainer."""
    return replace(run, trainer={**run.trainer, **trainer})


def _steps(record: RunRecord) -> dict[str, int]:
    return {"max_steps": record.steps["max_steps"]} if record.steps else {}


def _choose_steps(
    run: TrainingRun,
    like: ExactTrainer,
    tokenizers: Tokenizers,
    data: DatasetDict,
    record: RunRecord,
    minutes: float,
) -> dict[str, float]:
    """Time a few steps and an evaluation of a copy, and share out what is left of the minutes."""
    PartialState().print("Measuring how fast this machine is ...")
    clock = StepClock()
    short = {"max_steps": SPEED_STEPS, "eval_strategy": "no", "save_strategy": "no"}
    trial = _but(run, **short, load_best_model_at_end=False, logging_strategy="no")
    trainer = _trainer(trial, copy.deepcopy(like.model), tokenizers, data, [clock])
    trainer.retention = like.retention
    trainer.train()
    every = len(trainer.get_train_dataloader()) / trainer.args.gradient_accumulation_steps
    if run.trainer["eval_strategy"] == "steps":
        every = run.trainer.get("eval_steps", run.trainer["logging_steps"])
    began = record.seconds
    trainer.evaluate()
    evaluation = record.seconds - began
    left = minutes * 60 - record.seconds
    set_seed(run.trainer.get("seed", 42))
    return {
        "minutes": minutes,
        "seconds_per_step": clock.seconds_per_step,
        "seconds_per_evaluation": evaluation,
        "max_steps": steps_within(left, clock.seconds_per_step, evaluation, every),
    }


def steps_within(seconds: float, step: float, evaluation: float, every: float) -> int:
    """Steps that fit, of so many seconds each, with an evaluation every so many; below 1: each time
    after this share of all."""
    if every < 1:
        return max(1, int((seconds - evaluation / every) / step))
    return max(1, int(seconds / (step + evaluation / every)))


def _trainer(
    run: TrainingRun,
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizers: Tokenizers,
    data: DatasetDict,
    callbacks: list[TrainerCallback],
) -> ExactTrainer:
    arguments = _arguments(run)
    callbacks = [
        *callbacks,
        LastStep(),
        ManifestCallback(),
        SampleReplies(tokenizers, run.prompts or _prompts(tokenizers[0], data["validation"])),
    ]
    if arguments.load_best_model_at_end:
        callbacks.append(Patience(run.patience))
    if run.max_minutes is not None:
        callbacks.append(TimeLimit(run.max_minutes))
    trainer = ExactTrainer(
        model=model,
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizers[0],
        # lengths in eights: fewer shapes, so that memory is found again instead of asked for anew
        data_collator=ReplyCollator(tokenizers[0], model, pad_to_multiple_of=8),
        callbacks=callbacks,
    )
    trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)  # in a notebook it is another
    trainer.add_callback(TrainingProgress())
    return trainer


def _prompts(tokenizer: PreTrainedTokenizerFast, validation: Dataset) -> list[str]:
    """Ours for a chat; of parallel text the first sources of the validation split."""
    if is_chat(tokenizer):
        return DEFAULT_PROMPTS
    return tokenizer.batch_decode(validation[:4]["input_ids"], skip_special_tokens=True)


def _arguments(run: TrainingRun) -> Seq2SeqTrainingArguments:
    gpu = torch.cuda.is_available()
    machine = {"use_cpu": not gpu, "dataloader_pin_memory": gpu}
    checkpoints = str(run.folder / "checkpoints")
    try:
        return Seq2SeqTrainingArguments(checkpoints, **{**machine, **run.trainer})
    except TypeError as error:
        raise ValueError(f"trainer: {error}") from error


def _train_or_explain(run: TrainingRun, trainer: ExactTrainer, checkpoint: Path | None) -> None:
    """Train. What a full disk or too little memory raises becomes an error that says what to do."""
    folder = Path(trainer.args.output_dir)
    try:
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except NothingLeft:
        if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
            trainer._load_best_model()
    except (OSError, RuntimeError, SafetensorError, MemoryError) as error:
        unfinished = discard_unfinished(folder)
        if _is_out_of_memory(error):
            size = run.trainer["per_device_train_batch_size"]
            raise MemoryError(
                f"out of memory with batches of {size}: lower trainer.per_device_train_batch_size "
                "(twice the trainer.gradient_accumulation_steps for half of it trains the same), "
                "then prepare.max_source_tokens, or take a smaller model.preset."
            ) from error
        if not unfinished:
            raise
        raise OSError(
            f"{folder}: a checkpoint could not be saved ({error}). Those before it are whole: "
            f"make room, then: chatbot train {_quoted(folder.parent / RUN_NAME)} --resume"
        ) from error
    if trainer.average is not None:
        trainer.average.keep()


def _is_out_of_memory(error: Exception) -> bool:
    """Each library, and each device, has its own words for it."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "allocate memory" in str(error) or "bad_alloc" in str(error)


def _starting_point(folder: Path) -> Path | None:
    """The checkpoint to go on from. None: the run was cut off before it had written one."""
    newest = newest_whole(folder / "checkpoints")
    if newest is None:
        print(f"{folder}: no checkpoint yet, from the start")
        return None
    print(f"Going on from {newest}")
    best = TrainerState.load_from_json(str(newest / TRAINER_STATE_NAME)).best_model_checkpoint
    if best is not None and Path(best).is_dir() and (fault := damage(Path(best))):
        print(f"Left out and removed: {Path(best).name}: {fault}; it was the best so far")
        shutil.rmtree(best)
    return newest


def _check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raise where there is nothing to go on from, or where a run would be overwritten."""
    found = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    # what is prepared, the lock, and what a preparation that was cut off left
    others = any(
        name not in ("data", "samples", TALKS_NAME) and not name.startswith(".") for name in found
    )
    if resume:
        if not found or (others and RUN_NAME not in found):
            raise ValueError(
                f"--resume: {folder / 'checkpoints'} holds no checkpoint to go on from."
            )
    elif others and not overwrite:
        raise FileExistsError(f"{folder} exists; go on with --resume, or replace with --overwrite.")
    elif others and RUN_NAME not in found:
        raise FileExistsError(f"{folder} has no {RUN_NAME}, so --overwrite does not replace it.")
