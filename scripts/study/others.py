"""Translation and DailyDialog: other data, trained as `chatbot train` does, and measured.

Their data are non-commercial: results are committed, weights and data are not."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from study.arms import CONFIGS
from study.trials import DECODINGS
from transformers import PreTrainedTokenizerFast as Tokenizer

from chatbot import data, evaluation, load_chatbot, load_target_tokenizer
from chatbot.data.cleaning import Cleaned, StepLog, apply_steps
from chatbot.decoding import generate_replies
from chatbot.evaluation_report import reply_measures
from chatbot.explain import explain
from chatbot.folders import write_atomically
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration as Model
from chatbot.tokenization import is_chat, is_lowercasing
from chatbot.training import RUN_NAME, train
from chatbot.training_record import RECORD_NAME
from chatbot.training_run import TrainingRun, load_run

TRANSLATIONS, DAILYDIALOG = ("translation-general", "translation-none"), "dailydialog"
OTHERS = (*TRANSLATIONS, DAILYDIALOG)
WITHOUT = (CONFIGS / "translation-without.txt").read_text("utf-8").splitlines()
ASKED = dict(zip(WITHOUT[::2], WITHOUT[1::2], strict=True))  # sentences, and their English
HELD_OUT, Found = ("validation", "test"), dict[str, Any]
BENCHMARK, PAIRS = "benchmark/dailydialog", "benchmark/xdailydialog-en-it"
RECORDED = "config", "threads", "versions", "hardware", "sessions"
LONGEST = 40  # tokens of a source: longer ones are counted with these


def prepared(name: str, folder: Path, **changes: Any) -> TrainingRun:
    """A run, its data prepared if need be. `folder` is CHATBOT_DATA; errors as of `load_run`."""
    run = load_run(CONFIGS / f"{name}.yaml", changes)
    sources, options = [folder / BENCHMARK], run.prepare
    if name != DAILYDIALOG:
        ends = [folder / PAIRS / f"{split}.en-it" for split in ("train", "validation")]
        sources, without = [f"{end}.it.gz+{end}.en.gz" for end in ends], {"without": WITHOUT}
        options = {"task": "seq2seq", "clean": without, **options}
    data.prepare(sources, Path(run.data[0]), **options)
    return run


def carry_out_other(name: str, folder: Path, results: Path, **changes: Any) -> None:
    """Train, or go on, and measure, unless the result is there. `changes`: as of `load_run`."""
    if (result := results / f"{name}.json").is_file():
        return
    if not ((run := prepared(name, folder, **changes)).folder / "model").is_dir():
        train(run, resume=(run.folder / RUN_NAME).is_file())
    text = json.dumps(measure(run, folder / BENCHMARK / "test.jsonl.gz"))
    short = json.loads(text, parse_float=lambda number: float(f"{float(number):.6g}"))
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(result, json.dumps(short, indent=1, ensure_ascii=False) + "\n")


def measure(run: TrainingRun, official: Path) -> Found:
    """What is told of a trained run; `official` holds the dialogues of DailyDialog's test."""
    (model, reader), folder = load_chatbot(run.folder / "model"), Path(run.data[0])
    writer = load_target_tokenizer(run.folder / "model")
    splits = data.load_prepared(folder, reader, writer)
    if is_chat(reader):
        splits["test"] = those_of(splits["test"], folder, official)
    files = run.folder / RECORD_NAME, folder / data.REPORT_NAME
    record, report = (json.loads(file.read_text("utf-8")) for file in files)
    gone = report["steps"]["without"]
    lines = [data.normalized_text([{"content": line["before"]}]) for line in gone["examples"]]
    return {
        "parameters": model.num_parameters(),
        **{name: measure_split(model, reader, writer, splits[name]) for name in HELD_OUT},
        "sentences": [] if is_chat(reader) else translations(model, reader, writer),
        "left out": {said: sum(said in line for line in lines) for said in gone["setting"]},
        "preparation": {name: report[name] for name in ("dialogues", "examples", "dropped")},
        **{name: record[name] for name in RECORDED},
    }


def measure_split(model: Model, reader: Tokenizer, writer: Tokenizer, examples: Dataset) -> Found:
    """Teacher forcing, by length of the source too, and what is said to all examples."""
    columns = evaluation.perplexity_columns(evaluation.score_tokens(model, writer, examples))
    lengths = [min(-(-len(source) // 8) * 8, LONGEST) for source in examples["input_ids"]]
    of, found = examples["dialogue"], {"examples": len(examples)}
    found["teacher forcing"] = {n: evaluation.estimate(of, *sums) for n, sums in columns.items()}
    found["by source length"] = evaluation.group_table(columns, of, lengths)
    if is_chat(reader):
        found["ranking"] = evaluation.rank_replies(model, writer, examples, examples)
    for name, preset in DECODINGS.items():
        said = list(evaluation.predict(model, writer, examples, preset, source_tokenizer=reader))
        records = {key: [record[key] for record in said] for key in said[0]}
        found[name] = reply_measures(records, is_lowercasing(writer))
    return found


def translations(model: Model, reader: Tokenizer, writer: Tokenizer) -> list[Found]:
    """What becomes of the articles' sentences, and where the model looks (in hundredths)."""
    found = []
    for asked, wanted in ASKED.items():
        seen = explain(model, reader, asked, target_tokenizer=writer)
        weights = [] if seen.attention is None else (seen.attention * 100).round().astype(int)
        rows = [" ".join(map(str, row)) for row in weights]
        looks = {"source": seen.source_tokens, "target": seen.tokens, "weights": rows}
        for name, preset in DECODINGS.items():
            message = [{"role": "user", "content": asked}]
            said = generate_replies(model, reader, [message], preset, target_tokenizer=writer)
            looks[name] = said[0]
        found.append({"asked": asked, "wanted": wanted, **looks})
    return found


def those_of(examples: Dataset, folder: Path, file: Path) -> Dataset:
    """The test examples whose dialogues stand in a file: others were held out by their hash."""
    found = (dialogue["messages"] for _, dialogue in data.read_source(*data.find_sources([file])))
    cleaned = (apply_steps(messages, data.Cleaning(), StepLog()) for messages in found)
    known = {data.normalized_text(each.messages) for each in cleaned if isinstance(each, Cleaned)}
    lines = [line for shard in data.dialogue_shards(folder, "test") for line in shard.open("rb")]
    test = {r["dialogue"]: data.normalized_text(r["messages"]) for r in map(json.loads, lines)}
    return examples.select([i for i, of in enumerate(examples["dialogue"]) if test[of] in known])
