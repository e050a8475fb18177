"""scripts/teach.py: what it teaches and asks, what counts as an answer, and what it prints."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from chat_helpers import few_dialogues, write_dialogues

from chatbot.checkpoints import load_chatbot
from chatbot.data import load_prepared, prepare
from chatbot.evaluation import measure_perplexity


@pytest.fixture
def teach(repository: Path) -> ModuleType:
    """The script as a module of each test's own."""
    spec = importlib.util.spec_from_file_location("teach", repository / "scripts" / "teach.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_wording_that_is_asked_is_taught(teach: ModuleType) -> None:
    taught, asked = teach.taught_and_asked()
    facts = dict(taught)
    assert (len(facts), len(set(facts.values()))) == (200, 200)
    assert (len(asked), len({question for question, _ in asked})) == (600, 600)
    assert not facts.keys() & {question for question, _ in asked}
    assert taught == teach.taught_and_asked()[0]


def test_a_question_in_other_words_is_about_the_same(teach: ModuleType) -> None:
    taught, asked = teach.taught_and_asked()
    for number, (question, answer) in enumerate(taught):
        (place,) = [place for place in teach.PLACES if f" {place}" in question]
        for wording, wanted in asked[3 * number : 3 * number + 3]:
            assert wanted == answer
            assert place in wording
            assert place in answer


def test_an_answer_counts_to_the_letter_but_for_capitals(
    teach: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(f"question {number}", f"answer {number}.") for number in range(120)]
    said = {question: answer.capitalize() for question, answer in pairs}
    said |= {"question 3": "answer 3", "question 70": "answer 71."}

    def replies(model: None, tokenizer: None, conversations: list, preset: object, seed: int):
        assert len(conversations) <= 50
        assert preset.temperature == 0
        return [said[conversation[-1]["content"]] for conversation in conversations]

    monkeypatch.setattr(teach, "generate_replies", replies)
    assert teach.answered(None, None, pairs) == 118


def figures(printed: str) -> dict[str, tuple[str, str, str]]:
    """Source, and perplexity before, after and the change."""
    found = re.findall(r"open chat, (\S+): perplexity (\S+) -> (\S+) \((.*)\)", printed)
    return {source: tuple(values) for source, *values in found}


def test_the_figures_are_those_of_the_model_that_is_continued(
    teach: ModuleType,
    tiny_chatbot_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(teach, "PLACES", ["pool"])
    start = ["--start", str(tiny_chatbot_folder), "--rehearse", "0", "--noise", "0"]
    run = [str(tmp_path / "run"), "--trainer.max_steps", "3", *start]
    teach.main(run)
    printed = capsys.readouterr().out
    taught = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [message["content"] for message in taught[2]["messages"]] == [
        "where is the pool?", "you will find the pool on mill lane.",
    ]  # fmt: skip
    assert "as taught: 0 of 20\nheld-out paraphrases: 0 of 60\n" in printed
    assert re.search(r"\ntrained in \d+\.\d minutes, \d+ CPU seconds\n", printed)
    assert figures(printed).keys() == {"sample-conversations", "all"}

    chat = write_dialogues(tmp_path / "chat.jsonl", few_dialogues())
    model, tokenizer = load_chatbot(tiny_chatbot_folder)
    prepare([chat], tmp_path / "chat", tokenizer=tokenizer)
    monkeypatch.setattr(teach, "train", lambda run, overwrite: None)  # it is trained already
    teach.main([*run, "--open-chat", str(tmp_path / "chat")])
    measured = figures(capsys.readouterr().out)
    assert measured.keys() == {"chat", "all"}
    before, after, change = measured["chat"]
    examples = load_prepared(tmp_path / "chat")["test"]
    for figure, of in ((before, model), (after, load_chatbot(tmp_path / "run/model")[0])):
        expected = measure_perplexity(of, tokenizer, examples).per_token
        assert float(figure) == pytest.approx(expected, rel=1e-4)
    ratio = float(after) / float(before)
    assert ratio != pytest.approx(1, abs=1e-3)
    assert float(change.removesuffix("%")) / 100 == pytest.approx(ratio - 1, abs=6e-4)


def test_a_new_model_has_nothing_to_forget(teach: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="start='scratch': allowed is a model that chats already"):
        teach.main([str(tmp_path / "run"), "--start", "scratch"])
    assert not list(tmp_path.iterdir())
