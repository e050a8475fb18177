"""Parallel text through the whole product: prepare, train, evaluate, translate."""

import io
import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from chat_helpers import few_dialogues, write_dialogues
from modeling_helpers import tiny_model
from transformers import pipeline

import chatbot.pipelines  # noqa: F401  (registers the task)
from chatbot import ChatSession, load_chatbot, load_target_tokenizer, save_chatbot, train_tokenizer
from chatbot.cli import main
from chatbot.data import Cleaning, load_prepared, prepare, write_report
from chatbot.decoding import generate_replies
from chatbot.evaluation import measure_perplexity
from chatbot.presets import generation_preset
from chatbot.tokenization import TARGET_TOKENIZER, is_chat, load_tokenizers
from chatbot.training_run import TrainingRun

PAIRS = {
    "stai attento, thomas": "Be careful, thomas.",
    "cosa vorresti ordinare?": "What would you like to order?",
    "buongiorno a tutti": "Good morning, everybody.",
    "il gatto dorme": "The cat is asleep.",
    "ho fame": "I'm hungry.",
    "dove sono le chiavi?": "Where are the keys?",
    "piove ancora": "It's still raining.",
    "vengo domani": "I'll come tomorrow.",
    "lei legge un libro": "She reads a book.",
    "non lo so": "I don't know.",
    "gina canta": "Gina sings.",  # which its hash holds out for the test
}
TINY = (
    "--model.embedding_size 32 --model.hidden_size 32 --model.dropout 0.0 --model.cell_type gru "
    "--model.initializer_range 0.2 --model.tie_word_embeddings false --trainer.max_steps {0} "
    "--trainer.eval_strategy steps --trainer.eval_steps {0} --trainer.save_strategy steps "
    "--trainer.save_steps {0} --trainer.learning_rate 0.02"
)


class Trained(NamedTuple):
    data: Path
    model: Path
    printed: str


def write_sides(folder: Path, name: str, pairs: dict[str, str], times: int = 1) -> str:
    for end, side in (("it", pairs), ("en", pairs.values())):
        (folder / f"{name}.{end}").write_text(times * ("\n".join(side) + "\n"), "utf-8")
    return f"{folder / name}.it+{folder / name}.en"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model that has learned `PAIRS`, by the commands of the docs. Nobody changes it."""
    folder = tmp_path_factory.mktemp("translation")
    # twice, so that there are whole words to learn; and what is learned is validated too
    sources = [write_sides(folder, "train", PAIRS, 2), write_sides(folder, "validation", TWO)]
    data, run, said = folder / "it-en", folder / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", said)
        kept = ["--no-duplicates", "--no-leaks"]
        assert main(["prepare", *sources, "--task", "seq2seq", *kept, "--output", str(data)]) == 0
        train = ["train", "--data", str(data), "--output", str(run)]
        assert main([*train, *TINY.format(80).split()]) == 0
    return Trained(data, run / "model", said.getvalue())


TWO = dict(list(PAIRS.items())[:2])
LEARNED = {source: target for source, target in PAIRS.items() if source != "gina canta"}


def test_the_model_has_two_vocabularies(trained: Trained) -> None:
    config = load_chatbot(trained.model)[0].config
    source, target = load_tokenizers(trained.data / "tokenizer")
    assert (config.vocab_size, config.decoder_vocab_size) == (len(source), len(target))
    assert len(source) != len(target)
    assert (config.share_embeddings, config.copy) == (False, False)
    saved = load_tokenizers(trained.model)
    assert [each.get_vocab() for each in saved] == [source.get_vocab(), target.get_vocab()]
    assert not any(map(is_chat, saved))
    assert not list(trained.model.rglob("chat_template*"))
    record = json.loads((trained.model.parent / "run.json").read_text("utf-8"))
    learned = record["data"]["data"]["prepared"].keys()
    files = {"tokenizer/tokenizer.json", "tokenizer/target_tokenizer/tokenizer.json"}
    assert files <= learned
    settings = json.loads((trained.model / "generation_config.json").read_text("utf-8"))
    assert (settings["do_sample"], settings["num_beams"]) == (False, 4)


def test_validation_sentences_are_translated_while_training(trained: Trained) -> None:
    for source, target in TWO.items():
        assert f"  {source} -> {target}\n".lower() in trained.printed.lower()


def test_a_pipeline_translates(trained: Trained, tmp_path: Path) -> None:
    translate = pipeline("seq2seq-chat", model=str(trained.model), device="cpu")
    results = translate(list(LEARNED), batch_size=4)
    said = [result[0]["generated_text"].lower() for result in results]
    assert said == [target.lower() for target in LEARNED.values()]
    with pytest.raises(ValueError, match="a text, which this model translates by itself"):
        translate([{"role": "user", "content": "ho fame"}])
    with pytest.raises(ValueError, match="a model of parallel text does not chat"):
        translate.stream("ho fame")
    translate.save_pretrained(tmp_path / "again")
    again = pipeline("seq2seq-chat", model=str(tmp_path / "again"), device="cpu")
    assert again(list(LEARNED)) == results


def test_vocabularies_of_one_size_are_told_apart(tmp_path: Path) -> None:
    """Both sides have 4,096 tokens where enough is said, and then no size tells them apart."""
    sides = [list(PAIRS) * 2, list(PAIRS.values()) * 2]
    tokenizers = [train_tokenizer(side, vocab_size=280) for side in sides]
    for tokenizer in tokenizers:
        tokenizer.chat_template = None
    model = tiny_model(vocab_size=280, share_embeddings=False)
    for name, target in (("one", None), ("two", tokenizers[1])):
        save_chatbot(model, tokenizers[0], tmp_path / name, target_tokenizer=target)
        loaded = pipeline("seq2seq-chat", model=str(tmp_path / name), device="cpu")
        expected = target or tokenizers[0]
        assert loaded.tokenizer.get_vocab() == tokenizers[0].get_vocab()
        assert loaded.target_tokenizer.get_vocab() == expected.get_vocab()


def test_no_history_is_read(trained: Trained) -> None:
    model, tokenizer = load_chatbot(trained.model)
    earlier = [{"role": "user", "content": "piove ancora"}, {"role": "assistant", "content": "no"}]
    asked = [{"role": "user", "content": "ho fame"}]
    target, greedy = load_target_tokenizer(trained.model), generation_preset("greedy")
    replies = generate_replies(
        model, tokenizer, [asked, [*earlier, *asked]], greedy, target_tokenizer=target
    )
    assert replies == ["I'm hungry."] * 2


def test_the_terminal_gives_a_line_for_each_line(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for source in LEARNED for line in (source, " ")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*lines, "/quit"])))
    assert main(["chat", str(trained.model), "--preset", "greedy"]) == 0
    said = capsys.readouterr().out.split("\n")
    assert len(said) == len(lines) + 2  # "/quit" is a text like any other, and the end
    assert [line.lower() for line in said[:-2:2]] == [t.lower() for t in LEARNED.values()]
    assert set(said[1:-2:2]) == {""}


def test_evaluation_counts_the_targets(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained.model), str(trained.data), "--split", "train"]) == 0
    printed = capsys.readouterr().out
    model, source = load_chatbot(trained.model)
    target = load_target_tokenizer(trained.model)
    examples = load_prepared(trained.data, source, target)["train"]
    measured = measure_perplexity(model, target, examples)
    assert measured.words == 2 * sum(len(text.split()) for text in LEARNED.values())
    assert measured.per_token < 1.5
    assert str(measured) in printed


def test_training_ends_with_the_perplexity_of_the_target(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "--data", str(trained.data), "--output", str(tmp_path / "run")]
    assert main([*train, *TINY.format(1).split()]) == 0
    target = load_target_tokenizer(tmp_path / "run/model")
    validation = load_prepared(trained.data)["validation"]
    measured = measure_perplexity(load_chatbot(tmp_path / "run/model")[0], target, validation)
    assert f"Validation perplexity: {measured}\n" in capsys.readouterr().out


def test_predictions_show_both_languages(trained: Trained, tmp_path: Path) -> None:
    command = ["evaluate", str(trained.model), str(trained.data), "--split", "validation"]
    assert main([*command, "--decoding", "greedy", "--output", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out/predictions-greedy-validation.jsonl").read_text("utf-8").splitlines()
    for record in map(json.loads, lines):
        source = record["message"]
        assert record["context"] == f"{source}<end>"
        assert record["reference"] == PAIRS[source]
        assert record["prediction"].lower() == record["reference"].lower()
    assert len(lines) == len(TWO)


def test_int8_is_measured_on_pairs(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(trained.model), "--to", "int8", "--output", str(tmp_path / "int8")]
    assert main(command) == 2
    assert "needs --data for a model of two vocabularies, or of pairs" in capsys.readouterr().err
    assert main([*command, "--data", str(trained.data)]) == 0
    assert [len(t) for t in load_tokenizers(tmp_path / "int8")] == [
        len(t) for t in load_tokenizers(trained.model)
    ]


def test_a_chat_is_refused(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="a model of parallel text does not chat; allowed: `chat"):
        ChatSession.from_pretrained(trained.model)
    assert main(["chat", str(trained.model), "--min-confidence", "0.5"]) == 2
    assert "unknown key 'min_confidence'" in capsys.readouterr().err


def test_what_is_not_possible_is_refused(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: object) -> str:
        assert main(list(map(str, arguments))) == 2
        return capsys.readouterr().err

    train = ["train", "--data", trained.data, "--output", tmp_path / "run"]
    for start in ("shipped", trained.model):
        assert f"start={str(start)!r} is not possible with pairs" in said(*train, "--from", start)
    for field in ("copy", "share_embeddings"):
        message = said(*train, f"--model.{field}", "true")
        assert f"model: {{'{field}': True}} is not possible with two vocabularies" in message
    source = write_dialogues(tmp_path / "chats.jsonl", few_dialogues())
    prepare([source], tmp_path / "chats")
    message = said("evaluate", trained.model, tmp_path / "chats")
    assert "chats was prepared for task chat, which is not the model's" in message
    pairs = write_sides(tmp_path, "train", PAIRS)
    message = said("prepare", pairs, source, "--task", "seq2seq", "--output", tmp_path / "out")
    assert "chats.jsonl: conversations (messages) are no pairs; allowed with task seq2" in message


def test_one_vocabulary_makes_one_embedding(tmp_path: Path) -> None:
    pairs, run = write_sides(tmp_path, "train", PAIRS), tmp_path / "run"
    train = ["train", "--data", pairs, "--prepare.task", "seq2seq", "--output", str(run)]
    assert main([*train, "--prepare.shared-vocabulary", "true", *TINY.format(1).split()]) == 0
    model, tokenizer = load_chatbot(run / "model")
    assert model.config.share_embeddings
    assert model.config.copy
    assert not is_chat(tokenizer)
    assert not (run / "model" / TARGET_TOKENIZER).exists()
    assert TrainingRun(data=[pairs], prepare={"task": "seq2seq"}).start == "scratch"


def test_sentences_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "without.txt"
    listed.write_text("\n¡COSA  vorresti ordinare!\nThe cat\n...\n", "utf-8")
    pairs = write_sides(tmp_path, "train", PAIRS | {"e cosa vorresti ordinare, ora?": "And now?"})
    command = ["prepare", pairs, "--task", "seq2seq", "--output", str(tmp_path / "out")]
    assert main([*command, "--without", str(listed)]) == 0
    assert "dropped: 3 left out" in capsys.readouterr().out
    report = json.loads((tmp_path / "out/preparation.json").read_text("utf-8"))
    assert report["steps"]["without"]["count"] == 3
    shown = {example["before"] for example in report["steps"]["without"]["examples"]}
    assert "il gatto dorme / The cat is asleep." in shown
    assert report["settings"]["clean"]["without"] == ["cosa vorresti ordinare", "the cat"]
    kept = {row["reply"] for part in load_prepared(tmp_path / "out").values() for row in part}
    gone = {"What would you like to order?", "The cat is asleep.", "And now?"}
    assert kept == set(PAIRS.values()) - gone
    assert Cleaning.of({"without": ["The cat!"]}) == Cleaning.of({"without": ("the cat",)})
    with pytest.raises(ValueError, match=r"clean\.without='hi': allowed is a list of lines"):
        Cleaning.of({"without": "hi"})


def test_columns_of_a_table_may_have_any_name(tmp_path: Path) -> None:
    rows = ["nr;it;en", *(f'{n};"{it}";"{en}"' for n, (it, en) in enumerate(PAIRS.items()))]
    (tmp_path / "table.csv").write_text("\n".join(rows), "utf-8")
    command = ["prepare", str(tmp_path / "table.csv"), "--task", "seq2seq"]
    columns = ["--column", "source=it", "--column", "target=en"]
    assert main([*command, *columns, "--output", str(tmp_path / "out")]) == 0
    parts = load_prepared(tmp_path / "out").values()
    assert {row["reply"] for part in parts for row in part} == set(PAIRS.values())


def test_a_report_measures_each_side(trained: Trained, tmp_path: Path) -> None:
    write_report(trained.data, tmp_path)
    facts = json.loads((tmp_path / "report.json").read_text("utf-8"))
    rows = {row["level"]: row for row in facts["vocabulary"]}
    levels = ["chosen", "bpe", "unigram", "word", "char"]
    assert list(rows) == [f"{side} {level}" for side in ("source", "target") for level in levels]
    sizes = [len(tokenizer) for tokenizer in load_tokenizers(trained.data / "tokenizer")]
    assert [rows[f"{side} chosen"]["tokens"] for side in ("source", "target")] == sizes
    tokenizers = load_tokenizers(trained.data / "tokenizer")
    held_out = [*TWO.items(), *[("gina canta", PAIRS["gina canta"])] * 2]
    sides = zip(("source", "target"), tokenizers, zip(*held_out, strict=True), strict=True)
    for side, tokenizer, texts in sides:
        tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        words = sum(len(text.split()) for text in texts)
        assert rows[f"{side} chosen"]["tokens_a_word"] == pytest.approx(tokens / words)
    assert facts["settings"]["task"] == "seq2seq"
    if facts["languages"] is not None:
        assert sum(facts["languages"].values()) == 2 * facts["lengths"]["turns in a dialogue"]["2"]
