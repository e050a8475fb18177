"""What a continued model is held to: talks with itself, noisy contexts, and a divergence."""

from pathlib import Path

import pytest
import torch
from chat_helpers import few_dialogues
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from chatbot import load_chatbot
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import encode_context
from chatbot.training_retention import TURNS, Retention, talk_with_itself

Chatbot = tuple[RnnSeq2SeqForConditionalGeneration, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def chatbot(tiny_chatbot_folder: Path) -> Chatbot:
    return load_chatbot(tiny_chatbot_folder)


def contexts(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    return [encode_context(tokenizer, dialogue[:1], 56) for dialogue in few_dialogues(6)]


@pytest.fixture(scope="module")
def talks(chatbot: Chatbot) -> Dataset:
    return talk_with_itself(*chatbot, contexts(chatbot[1]), seed=0)


def retention(chatbot: Chatbot, talks: Dataset, **changes: float) -> Retention:
    settings = {"weight": 1.0, "noise": 0.5, "batch_size": 4, "seed": 0, **changes}
    return Retention(chatbot[0], chatbot[1], talks, **settings)


def test_whoever_answers_reads_the_other_as_the_user(chatbot: Chatbot, talks: Dataset) -> None:
    _, tokenizer = chatbot
    opened = contexts(tokenizer)
    assert len(talks) == TURNS * len(opened)
    assert talks[0]["input_ids"] == opened[0]
    bot, end = tokenizer.convert_tokens_to_ids(["<bot>", "<end>"])
    user = tokenizer.convert_tokens_to_ids("<user>")
    second = talks[len(opened)]["input_ids"]  # the answer to the first reply
    said = talks[0]["labels"]
    assert second[-len(said) - 2 :] == [user, *said, bot]
    assert second[0] == bot
    assert all(row["labels"].count(end) <= 1 for row in talks)


def test_talks_follow_from_the_seed(chatbot: Chatbot, talks: Dataset) -> None:
    again = talk_with_itself(*chatbot, contexts(chatbot[1]), seed=0)
    other = talk_with_itself(*chatbot, contexts(chatbot[1]), seed=1)
    assert again.to_list() == talks.to_list()
    assert other.to_list() != talks.to_list()


def test_noise_leaves_special_tokens_in_their_order(chatbot: Chatbot, talks: Dataset) -> None:
    _, tokenizer = chatbot
    batch = tokenizer.pad({"input_ids": contexts(tokenizer)}, return_tensors="pt")
    kept = retention(chatbot, talks, noise=0.9)
    torch.manual_seed(0)
    tokens, mask = kept.disturb(batch["input_ids"], batch["attention_mask"])
    special = set(tokenizer.all_special_ids)
    for before, after, real in zip(batch["input_ids"], tokens, mask.bool(), strict=True):
        wanted = [t for t in before.tolist() if t in special and t != tokenizer.pad_token_id]
        assert [t for t in after[real].tolist() if t in special] == wanted
        assert after[real].tolist() != before.tolist()
        assert not real.int().diff().gt(0).any()  # padding only at the end


def test_without_noise_contexts_stay(chatbot: Chatbot, talks: Dataset) -> None:
    _, tokenizer = chatbot
    batch = tokenizer.pad({"input_ids": contexts(tokenizer)}, return_tensors="pt")
    tokens, mask = retention(chatbot, talks, noise=0.0).disturb(**batch)
    torch.testing.assert_close(mask, batch["attention_mask"])
    torch.testing.assert_close(tokens * mask, batch["input_ids"] * mask)


def test_the_same_model_has_not_moved_away(chatbot: Chatbot, talks: Dataset) -> None:
    model, _ = chatbot
    kept = retention(chatbot, talks)
    same, _ = load_chatbot(model.name_or_path)
    assert kept.loss(same.train(), 0).item() == pytest.approx(0, abs=1e-6)
    assert same.training
    with torch.no_grad():
        same.lm_head.bias += torch.linspace(0, 2, len(same.lm_head.bias))
    moved = kept.loss(same, 0).item()
    assert moved > 0.01
    assert retention(chatbot, talks, weight=3.0).loss(same, 0).item() == pytest.approx(3 * moved)
    assert retention(chatbot, talks, weight=0.0).loss(same, 0).item() == 0


def test_every_talk_has_its_turn(chatbot: Chatbot, talks: Dataset) -> None:
    """Before any has a second one, and in an order that seed and step alone decide."""
    kept = retention(chatbot, talks)
    steps = len(talks) // 4
    rows = [row for step in range(steps) for row in kept._rows(step)]
    assert sorted(map(str, rows)) == sorted(map(str, talks.to_list()))
    assert kept._rows(1) == retention(chatbot, talks)._rows(1) != kept._rows(1 + steps)
