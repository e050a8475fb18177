"""One trial: an arm is trained for a budget of CPU time, measured, and written down.

Trainings are counted in steps, so that they can be repeated: as many as the budget has at the speed
that `seconds_per_step` measured, the same for all seeds of an arm.
"""

import json
import math
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets import Dataset
from study.arms import CONFIGS, Arm, Trial, load_arm, trials
from study.references import collate_texts
from transformers import AutoTokenizer, Seq2SeqTrainingArguments, TrainerCallback, set_seed
from transformers.trainer_callback import ExportableState

from chatbot import evaluation
from chatbot import training_checkpoints as checkpoints
from chatbot.data import REPORT_NAME, load_prepared, prepare
from chatbot.evaluation_report import reply_measures
from chatbot.explain import explain_reply
from chatbot.folders import write_atomically
from chatbot.metrics import unknown_rate
from chatbot.presets import GenerationPreset
from chatbot.tokenization import encode_context, encode_reply, is_lowercasing
from chatbot.training import JOINED_CONTEXTS
from chatbot.training_data import weigh_sources, with_validation
from chatbot.training_dialogues import ReplyCollator, join_replies
from chatbot.training_record import RECORD_NAME, RunRecord

CURVE_POINTS, LENGTH_STEP = 8, 16
GREEDY = GenerationPreset(no_repeat_ngram_size=0)
DECODINGS = {"greedy": GREEDY, "4 beams": replace(GREEDY, num_beams=4)}
NEVER = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "no")
HERE = {"use_cpu": True, "dataloader_pin_memory": False, "disable_tqdm": True}


@dataclass(frozen=True)
class Study:
    """Where results are committed, where the rest lies, and what data are prepared from.

    Args:
        quick: Whether everything is tiny.
        deadline: When trainings stop at their next checkpoint, by `time.time()`.
    """

    results: Path
    work: Path
    sources: Sequence[str]
    quick: bool = False
    deadline: float = math.inf

    def result(self, trial: Trial) -> Path:
        return self.results / f"{trial.name}.json"

    def data(self, arm: Arm) -> Path:
        """The arm's prepared data, made if need be: all trials learn from the same."""
        folder = self.work / "data" / Path(arm.run.data[0]).name
        if not (folder / REPORT_NAME).is_file():
            prepare(self.sources, folder, **arm.run.prepare)
        return folder

    def sample(self, examples: Dataset) -> Dataset:
        """What is answered, ranked and shuffled: the same of all arms, drawn with seed 0."""
        drawn = np.random.default_rng(0).permutation(len(examples))[: 40 if self.quick else 1000]
        return examples.select(np.sort(drawn))


class Budget(TrainerCallback, ExportableState):
    """CPU time of a training, without measuring and saving, and the validation loss at eighths."""

    def __init__(self, loss: Callable[[], float] | None = None, deadline: float = math.inf):
        self.loss, self.deadline = loss, deadline
        self.seconds, self.curve = 0.0, []

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"seconds": self.seconds, "curve": self.curve}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        vars(self).update(state.stateful_callbacks["Budget"]["attributes"])  # of the checkpoint
        self.began = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds += time.process_time() - self.began
        step = state.global_step
        done, before = (at * CURVE_POINTS // state.max_steps for at in (step, step - 1))
        if self.loss is not None and done > before:
            self.curve.append([step, self.seconds, self.loss()])
            print(f"{Path(args.output_dir).parent.name}: {done}/{CURVE_POINTS}", flush=True)
            control.should_save = True
            control.should_training_stop |= time.time() > self.deadline
        self.began = time.process_time()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = time.process_time()


class Training:
    """A trial's data, tokenizer and new model, as `chatbot train` would have them."""

    def __init__(self, trial: Trial, study: Study, folder: Path):
        self.study, self.folder = study, folder
        self.arm = load_arm(trial.arm, study.quick)
        run, self.prepared = self.arm.run, study.data(self.arm)
        run.trainer |= {"seed": trial.seed, **NEVER, **HERE, "load_best_model_at_end": False}
        if trial.rate is not None:
            run.trainer["learning_rate"] = trial.rate
        self.tokenizer = AutoTokenizer.from_pretrained(self.prepared / "tokenizer")
        self.data = with_validation(load_prepared(self.prepared))
        set_seed(trial.seed)
        self.model = self.arm.new_model()
        self.rows = weigh_sources(self.data["train"], run.source_weights, trial.seed)
        self.seen = study.sample(self.rows)
        batch, replies = run.trainer["per_device_train_batch_size"], len(self.rows)
        self.targets_per_step = batch * sum(map(len, self.rows["labels"])) / replies
        if run.one_pass:
            longest = JOINED_CONTEXTS * run.prepare["max_source_tokens"]
            self.rows = join_replies(self.rows, self.tokenizer, longest, folder / "rows.arrow")
            batch = max(1, round(batch * len(self.rows) / replies))
            run.trainer["per_device_train_batch_size"] = batch

    def train(self, steps: int, *callbacks: TrainerCallback) -> bool:
        """Train, or go on from the newest checkpoint. Returns whether it came to its end."""
        folder, is_text = self.folder / "checkpoints", self.arm.reference == "gpt2"
        options = {**self.arm.run.trainer, "max_steps": steps, "remove_unused_columns": not is_text}
        padded = ReplyCollator(self.tokenizer, self.model, pad_to_multiple_of=8)
        trainer = checkpoints.ExactTrainer(
            model=self.model,
            args=Seq2SeqTrainingArguments(str(folder), **options),
            train_dataset=self.rows,
            processing_class=self.tokenizer,
            data_collator=collate_texts if is_text else padded,
            callbacks=[*callbacks, checkpoints.LastStep(), checkpoints.ManifestCallback()],
        )
        newest = checkpoints.newest_whole(folder)
        with suppress(checkpoints.NothingLeft):
            trainer.train(resume_from_checkpoint=newest and str(newest))
        for wrapped in ("forward", "_original_forward"):  # accelerate's, which reads in bfloat16
            vars(self.model).pop(wrapped, None)
        return trainer.state.global_step >= steps

    def validation_loss(self) -> float:
        """Nats a token on every fourth of the sampled contexts."""
        examples = self.study.sample(self.data["validation"])
        examples = examples.select(range(0, len(examples), 4))
        measured = evaluation.measure_perplexity(self.model, self.tokenizer, examples)
        return measured.nats / measured.tokens

    def measure(self) -> dict[str, Any]:
        """What is told of a trained arm."""
        chatbot, validation = (self.model.eval(), self.tokenizer), self.data["validation"]
        part, dialogue = self.study.sample(validation), validation["dialogue"]
        columns = evaluation.perplexity_columns(evaluation.score_tokens(*chatbot, validation))
        lengths = [-(-len(x) // LENGTH_STEP) * LENGTH_STEP for x in validation["input_ids"]]
        return {
            "parameters": self.model.num_parameters(),
            "teacher forcing": {n: evaluation.estimate(dialogue, *of) for n, of in columns.items()},
            "train replies": evaluation.measure_perplexity(*chatbot, self.seen).per_token,
            "unknown": unknown_rate(part["labels"], self.tokenizer.unk_token_id),
            "context": evaluation.context_measures(*chatbot, part),
            "ranking": evaluation.rank_replies(*chatbot, part, validation),
            **{name: self.answer(part, preset) for name, preset in DECODINGS.items()},
            "by source length": evaluation.group_table(columns, dialogue, lengths),
            "attention": self.attention(),
        }

    def answer(self, examples: Dataset, preset: GenerationPreset) -> dict[str, Any]:
        """Measures of the replies to contexts, and how fast they came in batches of 64."""
        began = time.process_time()
        records = list(evaluation.predict(self.model, self.tokenizer, examples, preset))
        seconds = time.process_time() - began
        of = {name: [record[name] for record in records] for name in records[0]}
        speed = {"tokens a CPU-second": sum(of["tokens"]) / seconds}
        return reply_measures(of, is_lowercasing(self.tokenizer)) | speed

    def attention(self) -> list[dict[str, Any]]:
        """Of each of the ten sentences the tokens, and a row of weights in hundredths."""
        if self.arm.run.model.get("attention", "none") == "none":
            return []
        maps = []
        for line in (CONFIGS / "sentences.tsv").read_text("utf-8").splitlines():
            message, reply = line.split("\t")
            context = encode_context(self.tokenizer, [{"role": "user", "content": message}], 96)
            labels = encode_reply(self.tokenizer, reply, 48)
            weights = explain_reply(self.model, context, labels).attention
            source, target = ([self.tokenizer.decode(id) for id in of] for of in (context, labels))
            rows = [" ".join(map(str, row)) for row in (weights * 100).round().int().tolist()]
            maps.append({"source": source, "target": target, "weights": rows})
        return maps

    def record(self) -> dict[str, Any]:
        """Configuration, versions, hardware, and the SHA-256 of what was learned from."""
        record = RunRecord(replace(self.arm.run, output=str(self.folder)), False, None)
        record.describe({"data": self.prepared}, self.data["train"].unique("source"))
        record.write()
        kept = json.loads((self.folder / RECORD_NAME).read_text("utf-8"))
        told = {name: kept[name] for name in ("config", "threads", "versions", "hardware")}
        return told | {"reference": self.arm.config, "data": kept["data"]["data"]["prepared"]}


def seconds_per_step(arm: str, study: Study) -> float:
    """CPU time of an arm's step, over batches that are sorted by length together."""
    with TemporaryDirectory(dir=study.work) as folder:
        budget, steps = Budget(), 10 if study.quick else 50
        Training(Trial(arm, 0), study, Path(folder)).train(steps, budget)
    return budget.seconds / steps


def with_rate(trial: Trial, study: Study) -> Trial:
    """A reference's trial with the better of its rates. Raises ValueError where one is untried."""
    tried = [each for each in trials()["rates"] if each.arm == trial.arm]
    if trial.rate is not None or not tried or study.quick:
        return trial
    missing = [each.name for each in tried if not study.result(each).is_file()]
    if missing:
        raise ValueError(f"{trial.name}: its learning rate comes first: {', '.join(missing)}")
    results = (json.loads(study.result(each).read_text("utf-8")) for each in tried)
    losses = [result["teacher forcing"]["perplexity per token"]["value"] for result in results]
    return replace(trial, rate=tried[int(np.argmin(losses))].rate)


def carry_out(trial: Trial, study: Study, speed: float) -> None:
    """Train and measure, unless the result is there. What the deadline cuts off goes on later.

    `speed` is the CPU-seconds of a step.
    """
    if study.result(trial).is_file() or time.time() > study.deadline:
        return
    folder = study.work / trial.name
    folder.mkdir(parents=True, exist_ok=True)
    with checkpoints.sole_run(folder):
        training = Training(with_rate(trial, study), study, folder)
        budget = Budget(training.validation_loss, study.deadline)
        steps = max(CURVE_POINTS, round(trial.minutes * 60 / speed))
        if not training.train(steps, budget):
            return
        result = {
            "trial": asdict(trial),
            "date": datetime.now(UTC).date().isoformat(),
            "steps": steps,
            "cpu_seconds": budget.seconds,
            "target tokens a CPU-second": steps * training.targets_per_step / budget.seconds,
            "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
            "curve": budget.curve,
            **training.measure(),
            **training.record(),
        }
        text = json.dumps(result)
        short = json.loads(text, parse_float=lambda number: float(f"{float(number):.6g}"))
        write_atomically(study.result(trial), json.dumps(short, indent=1) + "\n")
        training.model.save_pretrained(folder / "model")
    shutil.rmtree(folder / "checkpoints")
    print(f"{trial.name}: done", flush=True)
