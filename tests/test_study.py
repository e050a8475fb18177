"""The study: its arms, the references behind our interface, its tables, and a tiny run of it."""

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from chat_helpers import sample_dialogues
from torch import Tensor
from torch.nn import functional as F

from chatbot.data import is_test
from chatbot.decoding import generate
from chatbot.evaluation import rank_replies
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.presets import GenerationPreset
from chatbot.training_run import load_run

GO, END, PAD = 2, 3, 0
OTHER_DATA = ("dailydialog", "translation-general", "translation-none")
CONTEXTS = [[4, 10, 11, 12, 13, 5], [4, 9, 5]]
TINY: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3},
    "bart": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "max_position_embeddings": 64, "init_std": 0.3,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def study(repository: Path) -> SimpleNamespace:
    """The modules of the script."""
    sys.path.insert(0, str(repository / "scripts"))
    try:
        import compare_attention
        from study import arms, others, others_page, references, tables, trials
    finally:
        sys.path.remove(str(repository / "scripts"))
    return SimpleNamespace(
        command=compare_attention,
        arms=arms,
        references=references,
        tables=tables,
        trials=trials,
        others=others,
        others_page=others_page,
    )


# References


@pytest.fixture(scope="module", params=TINY)
def reference(request: pytest.FixtureRequest, study: SimpleNamespace, tiny_chatbot: Any) -> Any:
    torch.manual_seed(0)
    sizes = len(tiny_chatbot[1]), TINY[request.param]
    return study.references.build_reference(request.param, *sizes).eval()


@torch.no_grad()
def reply_logits(model: Any, contexts: list[list[int]], labels: Tensor) -> Tensor:
    longest = max(map(len, contexts))
    padded = torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in contexts])
    start = model.prepare_decoder_input_ids_from_labels(labels)
    mask = (padded != PAD).long()
    output = model(input_ids=padded, attention_mask=mask, decoder_input_ids=start, use_cache=False)
    assert output.logits.shape == (*labels.shape, model.config.vocab_size)
    return output.logits


@pytest.mark.parametrize("beams", [1, 3])
def test_replies_of_a_batch_are_those_of_its_items(
    reference: Any, tiny_chatbot: Any, beams: int
) -> None:
    preset = GenerationPreset(num_beams=beams, no_repeat_ngram_size=0, max_new_tokens=8)

    def said(contexts: list[list[int]]) -> list[list[int]]:
        rows = generate(reference, tiny_chatbot[1], contexts, preset, torch.Generator()).sequences
        return [[token for token in row if token != PAD] for row in rows.tolist()]

    batch = said(CONTEXTS)
    assert batch == [said([context])[0] for context in CONTEXTS]
    assert all(row[0] == GO and len(row) > 2 for row in batch)
    assert batch[0] != batch[1]  # the context is read


def test_greedy_replies_are_the_likeliest_by_teacher_forcing(
    reference: Any, tiny_chatbot: Any
) -> None:
    preset = GenerationPreset(no_repeat_ngram_size=0, min_new_tokens=0, max_new_tokens=8)
    rows = generate(reference, tiny_chatbot[1], CONTEXTS, preset, torch.Generator()).sequences
    logits = reply_logits(reference, CONTEXTS, rows[:, 1:])
    logits[..., [0, 1, 2, 4, 5]] = -torch.inf  # what no reply may hold
    spoken = rows[:, 1:] != PAD
    assert torch.equal(logits.argmax(-1)[spoken], rows[:, 1:][spoken])


def test_references_are_ranked_as_our_models(reference: Any, tiny_chatbot: Any) -> None:
    """Contexts are repeated for their candidates: the ranks must be those of single pairs."""
    from datasets import Dataset

    replies = [[20, 21, END], [22, END], [23, 24, 25, END], [26, END]]
    examples = Dataset.from_dict(
        {
            "input_ids": [CONTEXTS[0], CONTEXTS[1]] * 2,
            "labels": replies,
            "dialogue": [0, 1, 2, 3],
        }
    )
    wins = 0
    for context, true in zip(examples["input_ids"], replies, strict=True):
        nats = [
            F.cross_entropy(
                reply_logits(reference, [context], torch.tensor([reply]))[0],
                torch.tensor(reply),
                reduction="sum",
            ).item()
            for reply in replies
        ]
        wins += min(nats) == nats[replies.index(true)]
    measured = rank_replies(reference, tiny_chatbot[1], examples, examples, count=4)
    assert measured["hits@1/4 by log p"]["value"] == pytest.approx(wins / 4)


def test_gpt2_learns_the_replies_of_a_dialogue_and_nothing_else(study: SimpleNamespace) -> None:
    torch.manual_seed(0)
    model = study.references.build_reference("gpt2", 40, TINY["gpt2"]).eval()
    first, second = [4, 10, 3, 5], [4, 10, 3, 5, 11, 3, 4, 12, 3, 5]
    rows = [
        {"input_ids": second, "reply_positions": [3, 9], "labels": [[11, 3], [13, 14, 3]]},
        {"input_ids": first, "reply_positions": [3], "labels": [[15, 3]]},
    ]
    batch = study.references.collate_texts(rows)
    assert batch["input_ids"][0].tolist() == [*second, 13, 14, 3]
    assert (batch["labels"] != -100).sum() == 7
    nats = torch.zeros(())
    for context, reply in ((first, [11, 3]), (second, [13, 14, 3]), (first, [15, 3])):
        logits = reply_logits(model, [context], torch.tensor([reply]))[0]
        nats += F.cross_entropy(logits, torch.tensor(reply), reduction="sum")
    torch.testing.assert_close(model(**batch).loss.detach(), nats / 7)


# Arms and the plan


def test_each_arm_is_planned_and_each_planned_arm_is_there(study: SimpleNamespace) -> None:
    files = {path.stem for path in study.arms.CONFIGS.glob("*.yaml")} - set(OTHER_DATA)
    planned = [trial for group in study.arms.trials().values() for trial in group]
    assert {trial.arm for trial in planned} == files
    assert len({trial.name for trial in planned}) == len(planned)
    rates = [trial.rate for trial in planned if trial.rate is not None]
    assert len(rates) == 4  # two for each reference
    groups = list(study.arms.trials())
    assert groups.index("decisive") == 0
    assert groups.index("rates") < groups.index("main")


def planned_arms() -> list[str]:
    plan = yaml.safe_load(
        (Path(__file__).parent.parent / "scripts/study/plan.yaml").read_text("utf-8")
    )["plan"]
    return sorted({arm for group in plan.values() for arm in group["arms"]})


@pytest.mark.parametrize("name", planned_arms())
def test_an_arm_differs_from_the_base_in_what_it_is_about(
    name: str, study: SimpleNamespace
) -> None:
    base, arm = study.arms.load_arm("base"), study.arms.load_arm(name)
    with torch.device("meta"):
        share = arm.new_model().num_parameters() / base.new_model().num_parameters()
    assert name.startswith("none-") or 0.95 < share < 1.05
    trainer = dict(arm.run.trainer)
    if arm.reference:
        trainer["learning_rate"] = base.run.trainer["learning_rate"]
        assert len(arm.learning_rates) == 2
        assert not arm.run.model
    else:
        model = {key for key, value in base.run.model.items() if arm.run.model[key] != value}
        assert len(model - {"embedding_size", "hidden_size"}) <= 1
    assert trainer == base.run.trainer
    if name not in ("word", "char"):
        assert arm.run.prepare == base.run.prepare
        assert arm.run.data == base.run.data


@pytest.mark.parametrize(
    "name", [*(name for name in planned_arms() if name not in TINY), *OTHER_DATA]
)
def test_chatbot_train_takes_our_arms(name: str, study: SimpleNamespace) -> None:
    run = load_run(study.arms.CONFIGS / f"{name}.yaml", {})
    assert run.minutes == (None if name in OTHER_DATA else 15)
    RnnSeq2SeqConfig(decoder_vocab_size=None, **run.model)  # refuses what is not possible


def test_tables_and_claims_are_about_trials_of_the_plan(study: SimpleNamespace) -> None:
    settings = study.arms.STUDY
    planned = {(t.arm, t.minutes) for group in study.arms.trials().values() for t in group}
    for _, minutes, measure, arms, _ in settings["claims"]:
        assert measure in settings["measures"]
        assert {(arm, minutes) for arm in arms} <= planned
    for _, _, minutes, measure, arms in settings["choices"]:
        assert measure in settings["measures"]
        assert {(arm, minutes) for arm in arms} <= planned
    for table in settings["tables"].values():
        assert set(table["columns"]) <= set(settings["measures"])
        assert set(table["rows"]) <= set(settings["plan"])


# Tables


def result(perplexity: float, seed: int = 1) -> dict[str, Any]:
    """As much of a file of results as perplexities need."""
    return {
        "trial": {"seed": seed},
        "teacher forcing": {"perplexity per token": {"value": perplexity}},
        "train replies": perplexity / 2,
        "by source length": [
            {"name": end, "perplexity per token": {"value": perplexity + end}}
            for end in range(16, 97, 16)
        ],
        "attention": [],
    }


def written(folder: Path, results: dict[str, dict[str, Any]]) -> Path:
    for name, content in results.items():
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return folder


def test_means_and_spreads_are_those_of_the_seeds(study: SimpleNamespace, tmp_path: Path) -> None:
    files = {f"none-256-15-{seed}": result(40 + 2 * seed, seed) for seed in (1, 2, 3)}
    results = study.tables.load_results(written(tmp_path, files | {"base-1.5-1": result(50)}))
    assert study.tables.cell(results, "none-256", 15, "per token") == "44.00 ± 2.00"
    assert study.tables.cell(results, "base", 1.5, "per token") == "50.00"
    assert study.tables.cell(results, "base", 15, "per token") == "not run yet"
    assert study.tables.cell(results, "base", 1.5, "long/short") == f"{146 / 66:.3f}"
    assert study.tables.cell(results, "base", 1.5, "validation/train") == "2.000"
    assert study.tables.cell(results, "base", 1.5, "33 to 48") == "98.00"


@pytest.mark.parametrize(
    ("first", "last", "more_is_better", "said"),
    [
        ([1.0, 2.0], [3.0, 4.0], False, "holds, 0.429"),
        ([1.0, 2.0], [3.0, 4.0], True, "does not hold, 0.429"),
        ([3.0, 4.0], [1.0, 2.0], True, "holds, 2.333"),
        ([1.0, 3.0], [2.0, 4.0], False, "seeds overlap, 0.667"),
        ([1.0], [2.0, 4.0], False, "holds (one seed), 0.333"),
        ([2.0], [2.0], False, "seeds overlap (one seed), 1.000"),
        ([], [2.0], False, "not run yet"),
    ],
)
def test_verdicts(
    study: SimpleNamespace, first: list[float], last: list[float], more_is_better: bool, said: str
) -> None:
    assert study.tables.verdict(first, last, more_is_better) == said


def test_a_page_is_filled_between_its_marks_alone(study: SimpleNamespace, tmp_path: Path) -> None:
    page = "# A\n\n<!-- begin rates -->\n<!-- end -->\n\nText.\n\n<!-- begin picture time -->\n"
    page += "old\n<!-- end -->\n"
    results = study.tables.load_results(written(tmp_path, {"bart-lr0.0005-5-1": result(90)}))
    texts = study.tables.blocks(results)
    filled = study.tables.fill(page, texts, {})
    assert "| bart-lr0.0005 | 5 | 1 | 90.00 |\n| bart-lr0.0015 | 5 | not run yet |  |" in filled
    assert filled.endswith("Text.\n\n<!-- begin picture time -->\nnot run yet\n<!-- end -->\n")
    assert filled.startswith("# A\n\n<!-- begin rates -->\n| arm |")
    with_picture = study.tables.fill(filled, texts, {"time": None})
    assert "-->\n![time](study/time.svg)\n<!--" in with_picture
    assert study.tables.fill(with_picture, texts, {"time": None}) == with_picture


def test_a_choice_shows_what_was_measured(study: SimpleNamespace, tmp_path: Path) -> None:
    results = study.tables.load_results(written(tmp_path, {"none-15-1": result(40)}))
    (row,) = (r for r in study.tables.choice_table(results).splitlines() if "to teach" in r)
    assert "per token: none 40.00; dot not run yet; base not run yet (15 minutes)" in row


def test_the_pages_are_what_the_results_say(study: SimpleNamespace, repository: Path) -> None:
    folder = repository / "docs" / "study"
    results = study.tables.load_results(folder / "results")
    others = study.others_page.load_others(folder / "others")
    blocks = study.tables.blocks(results) | study.others_page.other_blocks(others)
    pictures = study.tables.draw(results) | study.others_page.other_pictures(others)
    marks = []
    for page in ("study.md", "model.md"):
        text = (repository / "docs" / page).read_text("utf-8")
        assert study.tables.fill(text, blocks, pictures) == text
        marks += [line for line in text.splitlines() if line.startswith("<!-- begin")]
    assert {path.stem for path in folder.glob("*.svg")} == set(pictures)
    drawn = (f"picture {name}" for name in ("time", "lengths", "attention", "translation"))
    assert sorted(marks) == sorted(f"<!-- begin {name} -->" for name in (*blocks, *drawn))


# The whole


@pytest.fixture(scope="module")
def quick(study: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    study.command.main(["--quick", "--jobs", "0", "--output", str(folder)])
    return folder


def test_a_quick_study_writes_a_file_a_trial_and_does_not_repeat_it(
    study: SimpleNamespace, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((quick / "results").glob("*.json"))
    assert [path.stem for path in files] == ["base-0.03-1", "gpt2-0.03-1", "none-0.03-1"]
    before = [path.read_bytes() for path in files]
    study.command.main(["--quick", "--jobs", "0", "--output", str(quick)])
    assert [path.read_bytes() for path in files] == before
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows] == [
        "| arm", "| ---", "| base", "| none", "| gpt2"
    ]  # fmt: skip


def test_a_file_of_results_tells_all(study: SimpleNamespace, quick: Path) -> None:
    for name in study.arms.QUICK_PLAN["quick"]["arms"]:
        found = json.loads((quick / "results" / f"{name}-0.03-1.json").read_text("utf-8"))
        arm = study.arms.load_arm(name, quick=True)
        assert found["parameters"] == arm.new_model().num_parameters()
        assert len(found["curve"]) == 8
        assert found["curve"][-1][0] == found["steps"]
        assert found["curve"][-1][1] == found["cpu_seconds"]
        assert {"versions", "hardware", "config", "data", "date", "threads"} <= set(found)
        assert bool(found["attention"]) == (name == "base")
        for sentence in found["attention"]:
            for row in sentence["weights"]:
                weights = [int(number) for number in row.split()]
                assert len(weights) == len(sentence["source"])
                assert abs(sum(weights) - 100) <= len(weights)
        results = study.tables.load_results(quick / "results")
        assert len(found["ranking"]) == 2  # among fewer than 20: so many replies there are not
        measures = study.arms.STUDY["measures"]
        for measure in [m for m in measures if " to " not in m and m != "hits@1/20"]:
            (value,) = study.tables.values(results, name, 0.03, measure)
            assert value >= 0, measure


def test_what_was_measured_is_the_model_that_is_kept(study: SimpleNamespace, quick: Path) -> None:
    from transformers import AutoTokenizer

    from chatbot.data import load_prepared
    from chatbot.evaluation import measure_perplexity
    from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
    from chatbot.training_data import with_validation

    model = RnnSeq2SeqForConditionalGeneration.from_pretrained(quick / "none-0.03-1" / "model")
    tokenizer = AutoTokenizer.from_pretrained(quick / "data" / "bpe" / "tokenizer")
    validation = with_validation(load_prepared(quick / "data" / "bpe"))["validation"]
    found = json.loads((quick / "results" / "none-0.03-1.json").read_text("utf-8"))
    again = measure_perplexity(model, tokenizer, validation).per_token
    assert found["teacher forcing"]["perplexity per token"]["value"] == pytest.approx(again, 1e-5)


@pytest.mark.parametrize("arm", ["base", "gpt2"])
def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(
    study: SimpleNamespace, quick: Path, tmp_path: Path, arm: str
) -> None:
    setting = study.trials.Study(tmp_path, quick, [], quick=True)
    trial = study.arms.Trial(arm, 1, seed=7)

    def training(name: str) -> Any:
        return study.trials.Training(trial, setting, tmp_path / name)

    whole, cut = training("whole"), training("cut")
    assert whole.train(16, study.trials.Budget(whole.validation_loss))
    first = study.trials.Budget(cut.validation_loss, deadline=0)
    assert not cut.train(16, first)
    assert len(first.curve) == 1
    on = training("cut")
    second = study.trials.Budget(on.validation_loss)
    assert on.train(16, second)
    assert second.curve[0] == first.curve[0]
    assert [point[0] for point in second.curve] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert second.seconds > first.seconds
    for left, right in zip(whole.model.parameters(), on.model.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


def test_a_reference_takes_the_better_of_its_rates(study: SimpleNamespace, tmp_path: Path) -> None:
    setting, trial = study.trials.Study(tmp_path, tmp_path, []), study.arms.Trial("bart", 15)
    written(tmp_path, {"bart-lr0.0005-5-1": result(90)})
    with pytest.raises(ValueError, match=r"bart-15-1: .* comes first: bart-lr0.0015-5-1"):
        study.trials.with_rate(trial, setting)
    written(tmp_path, {"bart-lr0.0015-5-1": result(80)})
    assert study.trials.with_rate(trial, setting).rate == 0.0015
    written(tmp_path, {"bart-lr0.0015-5-1": result(95)})
    assert study.trials.with_rate(trial, setting).rate == 0.0005
    assert study.trials.with_rate(study.arms.Trial("base", 15), setting).rate is None


def test_the_list_says_what_is_left(
    study: SimpleNamespace, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.command.main(["--quick", "--list", "--output", str(quick), "--only", "[bn]*"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[::2] for line in lines[:2]] == [
        ["base-0.03-1", "done"], ["none-0.03-1", "done"]
    ]  # fmt: skip
    assert lines[2] == "0 of 2 trials and 0.0 CPU-hours of training are left"


# Translation and DailyDialog


SMALL = {
    "model.hidden_size": 16, "model.embedding_size": 16, "trainer.bf16": False,
    "trainer.max_steps": 2, "trainer.eval_strategy": "steps", "trainer.eval_steps": 2,
    "trainer.save_strategy": "steps", "trainer.save_steps": 2, "prepare.max_target_tokens": 16,
}  # fmt: skip


def write_others(folder: Path, asked: dict[str, str]) -> tuple[Path, int]:
    """A small CHATBOT_DATA, and how many dialogues its official test has.

    The sentences of the articles stand among the pairs, and in DailyDialog's train file there are
    dialogues that their hash holds out.
    """
    dialogues = sample_dialogues()
    held_out = [turns for turns in dialogues if is_test(turns)][:4]
    others = [turns for turns in dialogues if turns not in held_out]
    parts = {"train": others[:30] + held_out, "validation": others[30:42], "test": others[42:54]}
    texts = [message["content"] for turns in dialogues[:60] for message in turns]
    pairs = [(text[::-1], text) for text in dict.fromkeys(texts)]
    sides = {"train": pairs[:-30] + [*asked.items()] * 2, "validation": pairs[-30:]}
    for split, turns in parts.items():
        path = folder / "benchmark" / "dailydialog" / f"{split}.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"messages": messages}) for messages in turns)
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    for split, rows in sides.items():
        for end, side in zip(("it", "en"), zip(*rows, strict=True), strict=True):
            path = folder / "benchmark" / "xdailydialog-en-it" / f"{split}.en-it.{end}.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress("\n".join(side).encode()))
    return folder, len(parts["test"])


@pytest.fixture(scope="module")
def others(study: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results of a few steps on small files, and how many dialogues the official test has."""
    work = tmp_path_factory.mktemp("others")
    data, count = write_others(work / "source", study.others.ASKED)
    for name in study.others.OTHERS:
        changes = {**SMALL, "output": str(work / name), "data": [str(work / f"{name}-data")]}
        changes["prepare.vocab_size"] = 400
        study.others.carry_out_other(name, data, work / "results", **changes)
        assert (work / name / "model").is_dir()
    again = (work / "results" / "dailydialog.json").read_bytes()
    study.others.carry_out_other("dailydialog", data, work / "results")  # is not run again
    assert (work / "results" / "dailydialog.json").read_bytes() == again
    return study.others_page.load_others(work / "results"), count, work


def test_translators_have_two_vocabularies_and_never_read_the_sentences(
    study: SimpleNamespace, others: Any
) -> None:
    results, _, work = others
    asked = study.others.ASKED
    for name in study.others.TRANSLATIONS:
        found = results[name]
        config = json.loads((work / name / "model" / "config.json").read_text("utf-8"))
        assert (config["share_embeddings"], config["tie_word_embeddings"]) == (False, False)
        assert (work / name / "model" / "target_tokenizer").is_dir()
        assert set(found["left out"].values()) == {2}  # each stands there twice
        learned = (work / f"{name}-data" / "dialogues").glob("*.jsonl")
        texts = "".join(path.read_text("utf-8") for path in learned)
        assert not any(sentence in texts for pair in asked.items() for sentence in pair)
        assert [each["asked"] for each in found["sentences"]] == list(asked)
        for each in found["sentences"]:
            rows = [[int(number) for number in row.split()] for row in each["weights"]]
            assert len(rows) == (len(each["target"]) if name == "translation-general" else 0)
            assert all(len(row) == len(each["source"]) for row in rows)
            assert all(abs(sum(row) - 100) <= len(row) for row in rows)
        assert found["sessions"][-1]["step"] == 2


def test_the_configs_are_what_the_articles_want(study: SimpleNamespace) -> None:
    general, none = (
        load_run(study.arms.CONFIGS / f"{name}.yaml", {}) for name in study.others.TRANSLATIONS
    )
    assert (general.model["attention"], none.model["attention"]) == ("general", "none")
    assert general.trainer == none.trainer
    assert {general.model["embedding_size"], none.model["embedding_size"]} == {300}
    sizes = [
        RnnSeq2SeqForConditionalGeneration(
            RnnSeq2SeqConfig(vocab_size=4096, decoder_vocab_size=4096, **run.model)
        ).num_parameters()
        for run in (general, none)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_dailydialog_is_measured_on_its_official_test(others: Any) -> None:
    results, count, work = others
    found = results["dailydialog"]
    assert found["preparation"]["dialogues"]["test"]["dailydialog"] == count + 4
    kept = found["preparation"]["examples"]["test"]["dailydialog"]
    assert 0 < found["test"]["examples"] < kept
    official = study_dialogues(work / "source" / "benchmark" / "dailydialog" / "test.jsonl.gz")
    replies = sum(m["role"] == "assistant" for turns in official for m in turns)
    assert found["test"]["examples"] == replies


def study_dialogues(path: Path) -> list[Any]:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return [json.loads(line)["messages"] for line in lines]


def test_other_tables_show_numbers_as_they_are(study: SimpleNamespace, others: Any) -> None:
    results, _, _ = others
    blocks = study.others_page.other_blocks(results)
    assert not any("not run yet" in text for text in blocks.values())
    part = results["translation-none"]["validation"]
    bleu, token = part["4 beams"]["BLEU"]["value"], part["teacher forcing"]["perplexity per token"]
    (row,) = (r for r in blocks["translation"].splitlines() if "none" in r and "validation" in r)
    assert f"| {bleu:.2f}" in row
    assert f"| {token['value']:.2f} ({token['low']:.2f} to {token['high']:.2f}) |" in row
    assert "| Be careful Thomas | 2 |" in blocks["left out"]
    assert "dropped: left out" in blocks["translation data"]
    ours = results["dailydialog"]["test"]["greedy"]["distinct-1"]["value"]
    assert f"| {ours:.3f} |" in next(
        r for r in blocks["dailydialog"].splitlines() if "greedy: distinct-1" in r
    )
    (figure,) = study.others_page.other_pictures(results).values()
    assert len(figure.axes) == 2
    empty = study.others_page.other_blocks({})
    assert all("not run yet" in text for text in empty.values())
    assert study.others_page.other_pictures({}) == {}


def test_a_sentence_is_right_whatever_its_capitals(study: SimpleNamespace) -> None:
    said = {"greedy": "be careful, thomas!", "4 beams": "be | careful"}
    found = {"sentences": [said, said]}
    table = study.others_page.other_blocks({})["translation sentences"]
    assert "yes" not in table
    rows = study.others_page._sentences({"translation-general": found}).splitlines()
    assert rows[2].endswith("| be careful, thomas! | be \\| careful | yes, no |")
