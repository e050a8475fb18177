"""The card: what it says, that the Hub takes it, and that its owner's words stay."""

import json
from pathlib import Path

import pytest
import yaml
from chat_helpers import Chatbot
from hub_store import faults_of_card
from huggingface_hub import ModelCard
from modeling_helpers import tiny_model

from chatbot import train_tokenizer
from chatbot.chat import ChatSession
from chatbot.hub_card import answer_prompts, render_card, sources
from chatbot.hub_files import hub_config_path
from chatbot.hub_upload import merge_cards

RUN = {
    "licences": {"sample-conversations": "Apache-2.0", "personality-chat": "MIT"},
    "sessions": [{"step": 1234, "seconds": 600.0, "end": "finished"}],
    "hardware": {"processor": "P1", "cores": 2, "gpus": []},
}


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """What `chatbot evaluate --output` writes, with a measure that is no number."""
    per_token, per_word = {"value": 30.5, "low": 29.0, "high": 32.0}, {"value": 120.04}
    perplexities = {"perplexity per token": per_token, "perplexity per word": per_word}
    measures = {
        "teacher forcing": perplexities,
        "lively": {"BLEU": {"value": 1.25}, "distinct-1": {"value": float("nan")}},
    }
    sets = {"personality-chat": 30, "annabel": 4000}
    table = [{"name": name, "count": count, **perplexities} for name, count in sets.items()]
    test = {"replies": 4030, "measures": measures, "tables": {"source": table}}
    results = {"data": "data/annabel", "splits": {"test": test}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def test_a_card_tells_what_was_measured(tiny_chatbot: Chatbot, evaluation: Path) -> None:
    model, tokenizer = tiny_chatbot
    text = render_card(model, [tokenizer], "ann/m", RUN, evaluation=evaluation, curve=True)
    assert faults_of_card(text, "model") == []
    card = ModelCard(text)
    assert card.data.license == "apache-2.0"
    assert [(r.metric_name, r.metric_value, r.dataset_name) for r in card.data.eval_results] == [
        ("teacher forcing: perplexity per token", 30.5, DATA),
        ("teacher forcing: perplexity per word", 120.04, DATA),
        ("lively: BLEU", 1.25, DATA),
    ]
    for line in (
        "4,030 replies of held-out test dialogues",
        "| personality-chat | 30 | 30.5 | 120.0 |\n| other | 4,000 | 30.5 | 120.0 |",
        "| all | 4,030 | 30.5 | 120.0 |",
        "| teacher forcing | perplexity per token | 30.500 [29.000, 32.000] |",
        "1,234 steps in 10 minutes, with the CPU alone",
        "(2 cores of P1)",
        "![Losses while it learned](learning_curve.svg)",
        "| `attention` | general |",
        "| hello! |",
        "The three worst of the ",
        "## Limits",
        "@software{chatbot,",
        "chatbot chat ann/m",
        'AutoModelForSeq2SeqLM.from_pretrained("ann/m")',
        "| personality-chat | MIT | unknown | unknown | Microsoft BotBuilder-PersonalityChat |",
        'AutoModelForSeq2SeqLM.from_pretrained("ann/m", trust_remote_code=True)',
    ):
        assert line in text
    assert "annabel" not in text


DATA = "sample-conversations + personality-chat, test dialogues"


def test_a_card_of_a_translator_and_of_nothing_known() -> None:
    tokenizer = train_tokenizer(["ciao ciao"], level="char", min_frequency=1)
    tokenizer.chat_template = None
    model = tiny_model(vocab_size=len(tokenizer), attention="dot")
    text = render_card(model, [tokenizer], "ann/m", {})
    assert faults_of_card(text, "model") == []
    card = ModelCard(text)
    assert (card.data.pipeline_tag, card.data.license) == ("translation", None)
    assert "## Examples" not in text
    assert "Not measured." in text
    assert "How it was trained is not recorded." in text


def test_shares_come_from_the_prepared_folder(tmp_path: Path) -> None:
    counts = {"personality-chat": 300, "mine": 100}
    report = {"dialogues": {"train": counts, "test": {}}}
    (tmp_path / "preparation.json").write_text(json.dumps(report))
    run = {
        "licences": {"mine": "unknown", "personality-chat": "MIT"},
        "data": {"data": {"folder": str(tmp_path)}},
    }
    assert [(row["name"], row["dialogues"], row["share"]) for row in sources(run)] == [
        ("own data 1", "100", "25%"),
        ("personality-chat", "300", "75%"),
    ]


def test_shares_of_a_taught_model_are_those_of_its_lessons(tmp_path: Path) -> None:
    for folder, counts in {"data": {"mine": 96}, "samples": {"sample-conversations": 480}}.items():
        report = {"dialogues": {"train": counts, "test": {"mine": 4}}}
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "preparation.json").write_text(json.dumps(report))
    run = {
        "config": {"hold_out": False},
        "licences": {"mine": "unknown"},
        "data": {name: {"folder": str(tmp_path / name)} for name in ("data", "samples")},
    }
    assert [(row["dialogues"], row["share"]) for row in sources(run)] == [("100", "100%")]


def test_answers_begin_anew_at_each_prompt(tiny_chatbot: Chatbot) -> None:
    session = ChatSession(*tiny_chatbot)
    first, _, again = answer_prompts(session, ["hi", "are you a cat", "hi"])
    assert first == again
    assert first["prompt"] == "hi"


def part(name: str, text: str) -> str:
    return f"<!-- chatbot:{name} -->\n{text}\n<!-- /chatbot:{name} -->\n"


OURS = (
    "---\nlicense: mit\nmodel-index: [1]\ntags: [a]\n---\n# X\n"
    + part("use", "new")
    + part("results", "9")
)


def test_what_the_owner_wrote_stays() -> None:
    theirs = "---\ntags: [b]\nmodel-index: [0]\n---\nMine\n" + part("use", "old") + "Mine too\n"
    metadata, body = merge_cards(OURS, theirs).split("---\n")[1:]
    assert yaml.safe_load(metadata) == {"license": "mit", "model-index": [1], "tags": ["b"]}
    assert body == "Mine\n" + part("use", "new") + "Mine too\n"
    merged = merge_cards(OURS, theirs)
    assert merge_cards(OURS, merged) == merged


def test_a_card_of_somebody_else_is_kept_whole() -> None:
    merged = merge_cards(OURS, "# My own words\n")
    assert merged.endswith("# My own words\n\n# X\n" + part("use", "new") + part("results", "9"))
    assert merge_cards(OURS, None) == OURS


def test_only_some_parts_may_be_replaced() -> None:
    theirs = part("use", "old") + part("results", "measured")
    merged = merge_cards(OURS, theirs, only=["use"])
    assert merged.endswith(part("use", "new") + part("results", "measured"))


def test_the_shipped_card_and_set_are_taken_by_the_hub() -> None:
    for folder, kind in (("pretrained", "model"), ("sample_conversations", "dataset")):
        text = hub_config_path(folder, "README.md").read_text("utf-8")
        assert faults_of_card(text, kind) == []
