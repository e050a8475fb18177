"""Examples of one dialogue become one row, and give the losses that they give alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from chat_helpers import sample_tokenizer
from datasets import Dataset
from modeling_helpers import tiny_model
from test_training import prepared as prepared  # a fixture
from test_training import quietly, small_run, weights
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from chatbot.data import Message
from chatbot.data.examples import dialogue_examples
from chatbot.training_dialogues import ReplyCollator, join_replies

TURNS = [
    ["hi", "hello", "how are you?", "fine, and you?", "so so.", "why is that?"],
    ["who are you?", "i am a small bot."],
    ["it is late", "then sleep well", "not yet, tell me more", "about what?"],
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return sample_tokenizer()


def examples(tokenizer: PreTrainedTokenizerFast, max_source_tokens: int = 96) -> Dataset:
    rows = []
    for number, turns in enumerate(TURNS):
        messages = [
            Message(role="assistant" if place % 2 else "user", content=text)
            for place, text in enumerate(turns)
        ]
        made = dialogue_examples(
            tokenizer, messages, max_source_tokens=max_source_tokens, max_target_tokens=48
        )
        rows += [{**example, "dialogue": number, "source": "ours"} for example in made]
    return Dataset.from_list(rows)


def joined(
    tokenizer: PreTrainedTokenizerFast, folder: Path, max_tokens: int, **options: Any
) -> list[dict[str, Any]]:
    made = examples(tokenizer, **options)
    return join_replies(made, tokenizer, max_tokens, folder / "rows.arrow").to_list()


def test_a_dialogue_is_read_once(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    pairs, rows = examples(tokenizer), joined(tokenizer, tmp_path, 200)
    assert [len(row["labels"]) for row in rows] == [3, 1, 2]
    assert rows[0]["input_ids"] == pairs[2]["input_ids"]  # the context of its last reply
    contexts = [row["input_ids"][: end + 1] for row in rows for end in row["reply_positions"]]
    assert contexts == pairs["input_ids"][:]
    assert [reply for row in rows for reply in row["labels"]] == pairs["labels"][:]


def test_rows_are_grouped_by_thirds_of_the_longest(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = joined(tokenizer, tmp_path, 42)
    assert [row["length"] for row in rows] == [3, 1, 2]


def test_a_long_dialogue_goes_on_in_a_further_row(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pairs = examples(tokenizer)
    room = len(pairs[1]["input_ids"])
    rows = joined(tokenizer, tmp_path, room)
    assert [len(row["labels"]) for row in rows[:2]] == [2, 1]
    assert rows[1]["input_ids"] == pairs[2]["input_ids"]


def test_a_row_keeps_what_cut_contexts_lost(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    whole, cut = examples(tokenizer), examples(tokenizer, max_source_tokens=22)
    assert len(cut[2]["input_ids"]) < len(whole[2]["input_ids"])
    rows = joined(tokenizer, tmp_path, 200, max_source_tokens=22)
    assert rows[0]["input_ids"] == whole[2]["input_ids"]


def test_rows_give_the_loss_of_their_replies(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny_model(vocab_size=len(tokenizer), copy=True)
    collate = ReplyCollator(tokenizer, pad_to_multiple_of=8)
    rows, pairs = joined(tokenizer, tmp_path, 200), examples(tokenizer)
    batch = collate(rows)
    assert batch["reply_positions"].shape == (3, 3)
    assert batch["labels"].shape[2] % 8 == batch["input_ids"].shape[1] % 8 == 0
    features = [{name: row[name] for name in ("input_ids", "labels")} for row in pairs]
    alone = DataCollatorForSeq2Seq(tokenizer)(features)
    assert (batch["labels"] != -100).sum() == (alone["labels"] != -100).sum()
    torch.testing.assert_close(model(**batch).loss, model(**alone).loss)
    assert collate(features)["labels"].shape[0] == len(features)


def test_a_run_learns_from_dialogues_where_it_can(prepared: Path, tmp_path: Path) -> None:
    run = small_run(prepared, tmp_path / "dialogues", max_steps=2)
    perplexity, printed = quietly(run)
    assert "Dialogues in one pass: 2 rows" in printed or "Dialogues in one pass" in printed
    assert not (tmp_path / "dialogues" / ".dialogues.arrow").exists()
    run.one_pass, run.output = False, str(tmp_path / "pairs")
    assert "Dialogues in one pass" not in quietly(run)[1]
    run.one_pass, run.output = None, str(tmp_path / "bidirectional")
    run.model["bidirectional"] = True
    assert "Dialogues in one pass" not in quietly(run)[1]
    assert perplexity is not None
    assert weights(run)


@pytest.mark.parametrize(
    ("model", "trainer", "message"),
    [
        ({"bidirectional": True}, {}, "one_pass=True is not possible with model.bidirectional"),
        ({"copy": False}, {"label_smoothing_factor": 0.1}, "trainer.label_smoothing_factor"),
    ],
)
def test_where_it_cannot_it_says_so(
    prepared: Path, tmp_path: Path, model: dict[str, Any], trainer: dict[str, Any], message: str
) -> None:
    run = small_run(prepared, tmp_path / "run", **trainer)
    run.model |= model
    run.one_pass = True
    with pytest.raises(ValueError, match=message):
        quietly(run)
