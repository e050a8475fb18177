"""The whole evaluation of a model in one folder: numbers, tables, pictures, every prediction.

Of each split: `measures`, estimates by group and name, and `tables`, rows of them; the pages that
show them are the templates of `hub_config/evaluation`.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from huggingface_hub import EvalResult
from jinja2 import Environment, FileSystemLoader, select_autoescape

from chatbot import __version__, evaluation, metrics
from chatbot.evaluation import Model, Table, Tokenizer, dialogue_sums, estimate, group_table
from chatbot.folders import whole_folder
from chatbot.hub_files import hub_config_path
from chatbot.presets import GenerationPreset, generation_preset
from chatbot.tokenization import is_lowercasing

RESULTS = "results.json"
CONTEXT, LENGTH = "tokens of the context, up to", "words of the true reply, up to"
RARITY, TURN = "times a token is in the train replies, from", "turn (15: or later)"
Chatbot = tuple[Model, Tokenizer]
Presets = dict[str, GenerationPreset]
Results = dict[str, Any]
Records = dict[str, list[Any]]  # what `predict` tells of each reply


def evaluate(
    chatbot: Chatbot,
    data: DatasetDict,
    output: Path,
    *,
    about: Results,
    splits: Sequence[str] = ("test", "train"),
    decodings: Sequence[str] = ("lively",),
    limit: int = 1000,
    other: Path | None = None,
    overwrite: bool = False,
    source_tokenizer: Tokenizer | None = None,
) -> Results:
    """Measure a model and write `output`, whole or not at all. Returns what `results.json` holds.

    Args:
        about: What the results say besides: `model`, `data`, `other`, where they are from.
        splits: What to measure on; of the others at most as many replies as the first has.
        decodings: Names of generation presets.
        limit: Replies that are ranked and given, drawn with seed 0.
        other: The output of another evaluation, to compare this one with.
        source_tokenizer: Of what is read, where `chatbot` has that of what is written.

    Raises:
        FileExistsError, FileNotFoundError, ValueError, ImportError (no extra `evaluate`).
    """
    if limit < 1:
        raise ValueError(f"limit={limit} is not possible; allowed: 1 or more.")
    presets = {name: generation_preset(name) for name in decodings}
    protocol = hub_config_path("evaluation/protocol.txt").read_text("utf-8").splitlines()
    results = about | {"chatbot": __version__, "parameters": chatbot[0].num_parameters()}
    results |= {"protocol": protocol, "decodings": list(presets), "splits": {}}
    if other is not None:
        _check_comparable(other, splits[0], data[splits[0]])
    train = _sample(data["train"], 200_000)
    with whole_folder(output, overwrite=overwrite, mark=RESULTS) as folder:
        for split in splits:
            part = _sample(data[split], len(data[splits[0]]))
            results["splits"][split] = _measure(
                chatbot, part, train, presets, limit, folder, source_tokenizer
            )
        results["comparison"] = compare(folder, other, splits[0], decodings) if other else []
        (folder / RESULTS).write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        _write_pages(results, folder)
    return results


def _measure(
    chatbot: Chatbot,
    examples: Dataset,
    train: Dataset,
    presets: Presets,
    limit: int,
    folder: Path,
    reader: Tokenizer | None,
) -> Results:
    scores = evaluation.score_tokens(*chatbot, examples)
    turn, dialogue = (np.array(examples[name]) for name in ("turn", "dialogue"))
    file = folder / f"scores-{examples.split}.npz"
    np.savez_compressed(file, **vars(scores), turn=turn, dialogue=dialogue)
    columns = evaluation.perplexity_columns(scores)
    groups = {
        "source": examples["source"],
        CONTEXT: [-(-len(source) // 8) * 8 for source in examples["input_ids"]],
        TURN: np.minimum(turn, 15),
    }
    tables = {title: group_table(columns, dialogue, names) for title, names in groups.items()}
    tables[RARITY] = evaluation.rarity_table(scores, examples, train)
    nats, which = scores.sums(scores.nats) / scores.tokens, zip(dialogue, turn, strict=True)
    surprise, part = dict(zip(which, nats.tolist(), strict=True)), _sample(examples, limit)
    true = {
        "words": estimate(part["dialogue"], [len(reply.split()) for reply in part["reply"]]),
        "<unk>": {"value": metrics.unknown_rate(part["labels"], chatbot[1].unk_token_id)},
    }
    measures = {
        "teacher forcing": {name: estimate(dialogue, *of) for name, of in columns.items()},
        "perplexity per token, given": evaluation.context_measures(*chatbot, part),
        "ranking": evaluation.rank_replies(*chatbot, part, examples),
        "true replies": true | metrics.variety(part["reply"]),
    }
    for name, preset in presets.items():
        path = folder / f"predictions-{name}-{part.split}.jsonl"
        with path.open("w", encoding="utf-8") as lines:
            for record in evaluation.predict(*chatbot, part, preset, source_tokenizer=reader):
                record["nats_per_token"] = surprise[record["dialogue"], record["turn"]]
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")
        of = read_predictions(path)
        measures[name] = reply_measures(of, is_lowercasing(chatbot[1]))
        bins = [-(-len(text.split()) // 4) * 4 for text in of["reference"]]
        columns = {"words": (of["words"], 1, float)}
        tables[f"{name}: {LENGTH}"] = group_table(columns, of["dialogue"], bins)
    return {"replies": len(examples), "answered": len(part), "measures": measures, "tables": tables}


def read_predictions(file: Path) -> Records:
    """What a decoding said, in the order of the dialogues: a list for each name of a record."""
    records = [json.loads(line) for line in file.read_text("utf-8").rstrip("\n").split("\n")]
    records.sort(key=lambda record: (record["dialogue"], record["turn"]))
    return {name: [record[name] for record in records] for name in records[0]}


def reply_measures(of: Records, lowercase: bool) -> Results:
    """Measures of what a decoding said, against one reference each."""
    said, wanted, dialogue = of["prediction"], of["reference"], of["dialogue"]
    means = {"F1": "f1", "words": "words", "loops": "loop", "copies": "copy"}
    return {
        "BLEU": metrics.bleu(said, wanted, lowercase=lowercase),
        "chrF": metrics.chrf(said, wanted, lowercase=lowercase),
        **{name: estimate(dialogue, of[key]) for name, key in means.items()},
        **metrics.variety(said),
        "<unk>": estimate(dialogue, of["unknown"], of["tokens"]),
    }


_OTHERS = "other replies were measured; allowed: the same data, split and limit"


def _check_comparable(theirs: Path, split: str, examples: Dataset) -> None:
    """Raise FileNotFoundError or ValueError before anything is measured in vain."""
    if not (file := theirs / f"scores-{split}.npz").is_file():
        raise FileNotFoundError(f"{theirs} holds no evaluation of the split {split!r}.")
    with np.load(file) as scores:
        if any(not np.array_equal(scores[name], examples[name]) for name in ("dialogue", "turn")):
            raise ValueError(f"{theirs}: {_OTHERS}")


def compare(ours: Path, theirs: Path, split: str, decodings: Sequence[str]) -> Table:
    """Perplexity (gap: a ratio), F1, BLEU and chrF of two evaluations, whatever their capitals.

    Raises FileNotFoundError, ValueError: `theirs` holds none on this split; or on other replies.
    """
    refusal = f"{theirs}: {_OTHERS}"
    x, y = (np.load(folder / f"scores-{split}.npz") for folder in (ours, theirs))
    if not all(np.array_equal(x[name], y[name]) for name in ("dialogue", "turn", "words")):
        raise ValueError(refusal)
    a, b = (dialogue_sums(np.repeat(z["dialogue"], z["tokens"]), z["nats"])[:, 0] for z in (x, y))
    words = dialogue_sums(x["dialogue"], x["words"])[:, 0]
    gap = metrics.paired_test(a, b, words)
    gap |= {end: evaluation.perplexity(gap[end]) for end in ("value", "low", "high")}
    of, other = ({"value": evaluation.perplexity(nats.sum() / words.sum())} for nats in (a, b))
    table: Table = [{"name": "perplexity per word", "ours": of, "theirs": other, "gap": gap}]
    for name in decodings:
        file = f"predictions-{name}-{split}.jsonl"
        if (theirs / file).is_file():
            x, y = (read_predictions(folder / file) for folder in (ours, theirs))
            if x["reference"] != y["reference"]:
                raise ValueError(refusal)
            table += [row | {"name": f"{name}: {row['name']}"} for row in _compare_replies(x, y)]
    return table


def _compare_replies(ours: Records, theirs: Records) -> Table:
    said = (ours["prediction"], theirs["prediction"], ours["reference"])
    p = metrics.overlap_tests(*said, lowercase=True)
    f1 = metrics.paired_test(*dialogue_sums(ours["dialogue"], ours["f1"], theirs["f1"], 1).T)
    a, b = (reply_measures(of, lowercase=True) for of in (ours, theirs))
    gaps = {name: {"value": a[name]["value"] - b[name]["value"], "p": p[name]} for name in p}
    gaps = {"F1": f1} | gaps
    return [{"name": n, "ours": a[n], "theirs": b[n], "gap": gap} for n, gap in gaps.items()]


def model_index(results: Results) -> list[EvalResult]:
    """The measures on the first split, for the index of a model card."""
    split, measured = next(iter(results["splits"].items()))
    name = Path(results["data"]).name
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=name,
            dataset_name=f"{name}, {split} dialogues",
            metric_type=measure.lower(),
            metric_name=f"{group}: {measure}",
            metric_value=round(of["value"], 4),
        )
        for group, measures in measured["measures"].items()
        for measure, of in measures.items()
    ]


def _write_pages(results: Results, folder: Path) -> None:
    """The pages, with twenty examples drawn with seed 0 and the ten worst of the first decoding."""
    split, names = next(iter(results["splits"])), results["decodings"]
    answers = [read_predictions(folder / f"predictions-{name}-{split}.jsonl") for name in names]
    shown = {
        "results": results,
        "answers": dict(zip(names, answers, strict=True)),
        "drawn": np.random.default_rng(0).permutation(len(answers[0]["f1"]))[:20],
        "worst": np.lexsort((np.negative(answers[0]["nats_per_token"]), answers[0]["f1"]))[:10],
        "pictures": _pictures(results),
    }
    files = FileSystemLoader(hub_config_path("evaluation"))
    pages = Environment(loader=files, autoescape=select_autoescape(), trim_blocks=True)
    for name in ("results.md", "results.tex", "report.html"):
        (folder / name).write_text(pages.get_template(name).render(shown), "utf-8")


def _pictures(results: Results) -> str:
    """Tables of all splits as lines with their intervals, in one inline SVG."""
    from matplotlib.figure import Figure

    column = {CONTEXT: "perplexity per token", TURN: "perplexity per token"}
    column |= {f"{name}: {LENGTH}": "words" for name in results["decodings"]}
    figure = Figure(figsize=(7, 3 * len(column)), layout="constrained")
    for axes, (title, name) in zip(figure.subplots(len(column)), column.items(), strict=True):
        for split, measured in results["splits"].items():
            rows = [row for row in measured["tables"][title] if "low" in row[name]]
            x = [row["name"] for row in rows]
            y, low, high = ([row[name][end] for row in rows] for end in ("value", "low", "high"))
            axes.errorbar(x, y, np.abs(np.subtract([low, high], y)), capsize=3, label=split)
        axes.set(xlabel=title, ylabel=name)
        axes.legend()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _sample(examples: Dataset, size: int) -> Dataset:
    """At most `size` examples, drawn with seed 0, in their order."""
    drawn = np.random.default_rng(0).permutation(len(examples))[:size]
    return examples.select(np.sort(drawn))
