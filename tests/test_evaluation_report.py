"""The folder of an evaluation: what is in it, what it says, and that it is whole or not there."""

import html
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_helpers import Chatbot, make_chatbot, sample_dialogues, sample_tokenizer, write_dialogues
from datasets import DatasetDict
from huggingface_hub import ModelCardData

from chatbot import evaluation, metrics
from chatbot.data import is_test, load_prepared, prepare
from chatbot.evaluation import measure_perplexity, predict
from chatbot.evaluation_report import Results, compare, evaluate, model_index, read_predictions

DECODINGS = ["lively", "greedy"]
LIMIT = 9
ABOUT = {"model": "tiny", "data": "data/mine", "other": "None"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetDict:
    """Eight dialogues to learn and four to test on, one of which tries to write HTML."""
    folder = tmp_path_factory.mktemp("data")
    held_out = [messages for messages in sample_dialogues() if is_test(messages)][:4]
    learned = [messages for messages in sample_dialogues() if not is_test(messages)][:8]
    source = write_dialogues(folder / "mine.jsonl", [*held_out, *learned])
    prepare([source], folder / "prepared", tokenizer=sample_tokenizer(), max_target_tokens=12)
    return load_prepared(folder / "prepared")


@pytest.fixture(scope="module")
def model() -> Chatbot:
    return make_chatbot()


@pytest.fixture(scope="module")
def output(model: Chatbot, data: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation. Nobody changes it."""
    folder = tmp_path_factory.mktemp("evaluations") / "tiny"
    evaluate(model, data, folder, about=ABOUT, decodings=DECODINGS, limit=LIMIT)
    return folder


@pytest.fixture(scope="module")
def results(output: Path) -> Results:
    told: Results = json.loads((output / "results.json").read_text("utf-8"))
    return told


def estimates(value: Any) -> Iterator[dict[str, Any]]:
    """Everything with a value, wherever it stands."""
    if isinstance(value, dict) and "value" in value:
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from estimates(each)


def test_a_folder_holds_everything(output: Path, data: DatasetDict) -> None:
    predictions = {f"predictions-{name}-{of}.jsonl" for name in DECODINGS for of in data}
    scores = {f"scores-{of}.npz" for of in data}
    found = {path.name for path in output.iterdir()}
    held_out = {name for name in predictions | scores if "validation" not in name}
    assert found == {"results.json", "results.md", "results.tex", "report.html", *held_out}
    assert not list(output.parent.glob(".*"))


def test_what_the_results_say(
    model: Chatbot, data: DatasetDict, results: Results, output: Path
) -> None:
    assert results.items() > ABOUT.items()
    assert results["parameters"] == model[0].num_parameters()
    assert list(results["splits"]) == ["test", "train"]
    assert any("one reference" in line for line in results["protocol"])
    for of, told in results["splits"].items():
        assert told["replies"] == len(data["test"])  # of train as many, not all
        assert told["answered"] == LIMIT
        scores = dict(np.load(output / f"scores-{of}.npz"))
        assert len(scores["tokens"]) == told["replies"]
        assert len(scores["nats"]) == scores["tokens"].sum()
        per_token = told["measures"]["teacher forcing"]["perplexity per token"]
        assert per_token["value"] == pytest.approx(math.exp(scores["nats"].mean()), rel=1e-5)
    expected = measure_perplexity(*model, data["test"])
    forced = results["splits"]["test"]["measures"]["teacher forcing"]
    assert forced["perplexity per word"]["value"] == pytest.approx(expected.per_word, rel=1e-5)
    assert len(list(estimates(results))) > 100
    for found in estimates(results):
        assert math.isfinite(found["value"])
        assert found.get("low", 0) <= found.get("high", 0)


def test_tables_add_up(results: Results, data: DatasetDict) -> None:
    tables = results["splits"]["test"]["tables"]
    of_examples = [title for title in tables if title.startswith(("source", "tokens", "turn"))]
    assert len(of_examples) == 3
    for title in of_examples:
        assert sum(row["count"] for row in tables[title]) == len(data["test"])
    rarity = tables["times a token is in the train replies, from"]
    assert sum(row["count"] for row in rarity) == sum(map(len, data["test"]["labels"]))
    for name in DECODINGS:
        lengths = tables[f"{name}: words of the true reply, up to"]
        assert sum(row["count"] for row in lengths) == LIMIT
        assert all(row["name"] % 4 == 0 for row in lengths)


def test_each_prediction_stands_beside_its_reference(output: Path, data: DatasetDict) -> None:
    known = {(row["dialogue"], row["turn"]): row["reply"] for row in data["test"]}
    for name in DECODINGS:
        lines = (output / f"predictions-{name}-test.jsonl").read_text("utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        assert len({(each["dialogue"], each["turn"]) for each in records}) == LIMIT
        for each in records:
            assert each["reference"] == known[each["dialogue"], each["turn"]]  # whole, not cut
            assert each["f1"] == metrics.word_f1(each["prediction"], each["reference"])
            assert each["context"].startswith(("<user>", "<bot>"))
            assert each["nats_per_token"] > 0
        assert max(len(sample_tokenizer()(each["reference"]).input_ids) for each in records) > 12


def test_measures_of_replies_are_those_of_the_file(output: Path, results: Results) -> None:
    read = read_predictions(output / "predictions-greedy-test.jsonl")
    told = results["splits"]["test"]["measures"]["greedy"]
    said, wanted = read["prediction"], read["reference"]
    assert told["BLEU"] == pytest.approx(metrics.bleu(said, wanted, lowercase=True))
    assert told["chrF"] == pytest.approx(metrics.chrf(said, wanted, lowercase=True))
    assert "case:lc" in told["BLEU"]["signature"]  # the tokenizer lower-cases
    assert told["F1"]["value"] == pytest.approx(np.mean(read["f1"]))
    assert told["words"]["value"] == pytest.approx(np.mean([len(text.split()) for text in said]))
    assert told["loops"]["value"] == pytest.approx(np.mean([*map(metrics.loop_rate, said)]))
    assert told["copies"]["value"] == pytest.approx(
        np.mean([*map(metrics.copy_rate, said, read["message"])])
    )
    assert told["distinct-2"]["value"] == metrics.distinct(said, 2)
    assert told["unique"]["value"] == metrics.unique_rate(said)
    assert told["<unk>"]["value"] == 0
    true = results["splits"]["test"]["measures"]["true replies"]
    assert true["words"]["value"] == pytest.approx(np.mean([len(t.split()) for t in wanted]))
    assert true["distinct-2"]["value"] == metrics.distinct(wanted, 2)


def test_the_pages_show_the_numbers(output: Path, results: Results) -> None:
    main = results["splits"]["test"]["measures"]
    value = f"{main['lively']['chrF']['value']:.2f} ["
    for page in ("results.md", "results.tex", "report.html"):
        assert value in (output / page).read_text("utf-8"), page
    markdown = (output / "results.md").read_text("utf-8")
    assert main["lively"]["BLEU"]["signature"] in markdown
    for line in results["protocol"]:
        assert line in markdown
    rows = re.findall(r"^\|.*\|$", markdown, re.MULTILINE)
    assert {row.count("|") for row in rows[:20]} == {5}  # group, name, test, train
    latex = (output / "results.tex").read_text("utf-8")
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {3}
    assert r"\textless{}unk\textgreater{}" in latex
    assert r"\toprule" in latex


def test_the_page_needs_no_other_file(output: Path) -> None:
    page = (output / "report.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!#)', page)
    assert page.count("<svg") == page.count("</svg>") == 1
    drawn, worst = page.split("<h2>The worst</h2>")
    assert drawn.count("<article>") == worst.count("<article>") == LIMIT  # there are no more


def test_the_worst_come_first(
    model: Chatbot, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_right(*given: Any, **options: Any) -> Iterator[dict[str, Any]]:
        """Every second reply is the true one."""
        for place, record in enumerate(predict(*given, **options)):
            yield record | ({"prediction": record["reference"], "f1": 1.0} if place % 2 else {})

    monkeypatch.setattr(evaluation, "predict", half_right)
    evaluate(model, data, tmp_path / "out", about=ABOUT, splits=["test"], limit=LIMIT)
    page = html.unescape((tmp_path / "out" / "report.html").read_text("utf-8"))
    shown = re.findall(
        r"true reply <small>([\d.]+) .*?</dt><dd>(.*?)</dd>", page.split("worst<")[1]
    )
    read = read_predictions(tmp_path / "out" / "predictions-lively-test.jsonl")
    surprise = np.negative(read["nats_per_token"])
    rows = sorted(zip(read["f1"], surprise, read["reference"], strict=True))
    assert [reference for _, reference in shown] == [reference for *_, reference in rows]
    assert [float(nats) for nats, _ in shown] == [round(-nats, 2) for _, nats, _ in rows]
    assert rows[0][0] < rows[-1][0] == 1


def test_what_people_wrote_is_text_in_the_page(
    model: Chatbot, data: DatasetDict, tmp_path: Path
) -> None:
    def write(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "reply": f"<script>alert(1)</script>\u2028{row['reply']}"}

    hostile = DatasetDict({name: of.map(write) for name, of in data.items()})
    evaluate(model, hostile, tmp_path / "out", about=ABOUT, splits=["test"], limit=2)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<script>" not in page
    assert page.count("&lt;script&gt;alert(1)") == 4  # two drawn by chance, the same two the worst


def test_it_is_the_same_again(
    model: Chatbot, data: DatasetDict, results: Results, output: Path, tmp_path: Path
) -> None:
    again = evaluate(model, data, tmp_path / "again", about=ABOUT, decodings=DECODINGS, limit=LIMIT)
    assert json.loads(json.dumps(again)) == results
    for name in ("predictions-lively-train.jsonl", "results.md", "results.tex"):
        assert (tmp_path / "again" / name).read_bytes() == (output / name).read_bytes()


def test_a_model_against_itself(output: Path) -> None:
    table = compare(output, output, "test", DECODINGS)
    assert [row["name"] for row in table] == [
        "perplexity per word",
        *(f"{name}: {of}" for name in DECODINGS for of in ("F1", "BLEU", "chrF")),
    ]
    assert all(row["gap"]["p"] == 1 for row in table)
    assert table[0]["gap"] == {"value": 1, "low": 1, "high": 1, "p": 1}
    assert table[1]["ours"] == table[1]["theirs"]


def test_a_model_against_a_worse_one(
    model: Chatbot, data: DatasetDict, output: Path, tmp_path: Path
) -> None:
    worse = make_chatbot()
    with torch.no_grad():
        worse[0].lm_head.bias[sample_tokenizer().eos_token_id] -= 8  # `<end>` becomes a surprise
    options: Any = {"about": ABOUT, "splits": ["test"], "decodings": ["greedy"], "limit": LIMIT}
    told = evaluate(worse, data, tmp_path / "worse", other=output, **options)
    perplexity, *replies = told["comparison"]
    per_word = [measure_perplexity(*each, data["test"]).per_word for each in (worse, model)]
    gap = perplexity["gap"]
    assert perplexity["ours"]["value"] == pytest.approx(per_word[0], rel=1e-5)
    assert perplexity["theirs"]["value"] == pytest.approx(per_word[1], rel=1e-5)
    assert gap["value"] == pytest.approx(per_word[0] / per_word[1], rel=1e-5)
    assert 1 < gap["low"] <= gap["value"] <= gap["high"]
    assert gap["p"] == pytest.approx(2 / 16, abs=0.03)  # four dialogues, all worse: 2 throws of 16
    assert [row["name"] for row in replies] == ["greedy: F1", "greedy: BLEU", "greedy: chrF"]
    f1 = replies[0]
    assert f1["gap"]["value"] == pytest.approx(f1["ours"]["value"] - f1["theirs"]["value"])
    for page in ("results.md", "report.html"):
        assert "greedy: chrF" in (tmp_path / "worse" / page).read_text("utf-8")


def test_only_the_same_replies_are_compared(
    model: Chatbot, data: DatasetDict, output: Path, tmp_path: Path
) -> None:
    fewer = DatasetDict({**data, "test": data["test"].select(range(5))})
    for changed, limit in ((fewer, 5), (data, LIMIT - 1)):
        with pytest.raises(ValueError, match="other replies were measured; allowed: the same"):
            evaluate(
                model,
                changed,
                tmp_path / "out",
                about=ABOUT,
                splits=["test"],
                limit=limit,
                other=output,
            )
    with pytest.raises(FileNotFoundError, match="holds no evaluation of the split 'test'"):
        evaluate(model, data, tmp_path / "out", about=ABOUT, splits=["test"], other=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"scores-test\.npz"):
        compare(output, tmp_path, "test", DECODINGS)
    assert not list(tmp_path.iterdir())


def test_bad_options_and_missing_extras_leave_nothing(
    model: Chatbot, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="limit=0 is not possible; allowed: 1 or more"):
        evaluate(model, data, tmp_path / "out", about=ABOUT, limit=0)
    with pytest.raises(ValueError, match="'loud' is unknown; allowed: lively"):
        evaluate(model, data, tmp_path / "out", about=ABOUT, decodings=["loud"])
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match="install the extra `evaluate`"):
        evaluate(model, data, tmp_path / "out", about=ABOUT, limit=2)
    assert not list(tmp_path.iterdir())


def test_results_in_a_model_card(results: Results) -> None:
    index = model_index(results)
    named = {each.metric_name: each for each in index}
    assert named["lively: BLEU"].metric_type == "bleu"
    assert named["lively: BLEU"].dataset_name == "mine, test dialogues"
    told = results["splits"]["test"]["measures"]["teacher forcing"]["accuracy"]["value"]
    assert named["teacher forcing: accuracy"].metric_value == pytest.approx(told, abs=1e-4)
    card = ModelCardData(model_name="tiny", eval_results=index).to_dict()
    assert len(card["model-index"][0]["results"][0]["metrics"]) == len(index)
