"""The look inside a reply, as the data that the page draws."""

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from browser_helpers import MakeBot
from modeling_helpers import tiny_model
from transformers import PreTrainedTokenizerFast

from chatbot import safety
from chatbot.app import strings
from chatbot.app.conversation import Bot, Choice
from chatbot.app.inspection import Look, inspect_reply, note
from chatbot.chat import ChatSession, Reply, Timing
from chatbot.data import clean_text
from chatbot.decoding import reply_text
from chatbot.explain import explain_reply
from chatbot.presets import GenerationPreset
from chatbot.serving.engine import Engine
from chatbot.tokenization import encode_reply, train_tokenizer

LIVELY = Choice(GenerationPreset(temperature=0.9, max_new_tokens=12), seed=5)
NASTY = "ＴＥＡ\u200b  Cafe\u0301, 😀😀\n<end> ISTANBUL\u202eİ é\tok <b>&lt; don't"


def look_inside(
    bot: Bot, *texts: str, choice: Choice = LIVELY, **options: Any
) -> tuple[Reply, Look]:
    """The reply to a conversation that the user began, and the look inside, as it travels."""
    roles = ["user", "assistant"] * len(texts)
    asked = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    given = {"messages": bot.session(choice, asked[:-1]).messages, "seed": choice.seed, **options}
    reply = ChatSession(bot.model, bot.tokenizer, choice.preset, **given).reply(texts[-1])
    ranked = choice.preset.num_candidates > 1
    look = inspect_reply(reply, asked, bot.tokenizer, bot.model.config, ranked=ranked)
    return reply, json.loads(json.dumps(look))


def test_numbers_are_the_models_own(bot: Bot) -> None:
    reply, look = look_inside(bot, "hello", "fine", "how are you?")
    source, labels = torch.tensor([reply.source_ids]), torch.tensor([reply.token_ids])
    with torch.inference_mode():
        output = bot.model(input_ids=source, labels=labels, output_attentions=True)
    weights = torch.tensor(look["weights"])
    torch.testing.assert_close(weights, output.cross_attentions[0][0, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)), atol=1e-4, rtol=0)
    softmax = output.logits[0].softmax(-1)
    spoken = softmax.gather(1, labels.T)[:, 0]
    torch.testing.assert_close(torch.tensor(look["probabilities"]), spoken, atol=1e-6, rtol=0)
    for others, row in zip(look["alternatives"], softmax, strict=True):
        best = row.topk(5)
        names = [bot.tokenizer.decode([token]) for token in best.indices]
        assert [name for name, _, _ in others] == names
        assert [p for _, p, _ in others] == pytest.approx(best.values.tolist(), abs=1e-6)
    for entropy, row in zip(look["entropy"], look["weights"], strict=True):
        assert entropy == pytest.approx(-sum(p * math.log(p) for p in row if p), abs=1e-3)


def test_shares_are_what_the_reply_drew_from_each_turn(bot: Bot) -> None:
    _, look = look_inside(bot, "hello", "fine", "how are you?")
    mean = torch.tensor(look["weights"]).mean(0)
    names = [token for token, _ in look["source"]]
    assert len(look["shares"]) == 3
    first, *_ = (at for at, name in enumerate(names) if name == "<end>")
    assert look["shares"][0] == pytest.approx(float(mean[: first + 1].sum()), abs=1e-4)
    assert sum(look["shares"]) + float(mean[-1]) == pytest.approx(1, abs=1e-4)


def placed(look: Look, texts: list[str]) -> list[tuple[str, str]]:
    """Each token that has a place, and the text that stands there."""
    source = [(token, *place) for token, place in look["source"] if place]
    return [(token, texts[index][start:end]) for token, index, start, end in source]


def test_what_was_read_is_found_in_the_messages(bot: Bot) -> None:
    texts = ["What DO you like?", "  fine,\n thanks ", NASTY]
    _, look = look_inside(bot, *texts)
    for token, text in placed(look, texts):
        assert token.strip().lower() in clean_text(text).lower()
    assert "😀" in {token for token, _ in look["source"]}  # its bytes are called by its name
    for index, text in enumerate(texts):  # each letter in one place, blanks in none
        places = {tuple(place) for _, place in look["source"] if place and place[0] == index}
        pieces = [text[start:end] for _, start, end in sorted(places)]
        assert "".join("".join(pieces).split()) == "".join(clean_but_accents(text).split())
    nowhere = [token for token, place in look["source"] if not place]
    turn = ["<user>", "<end>", "<bot>", "<end>", "<user>", "<end>", "<bot>"]
    assert [token for token in nowhere if token.strip()] == turn


def test_what_cannot_be_placed_is_left_out(bot: Bot) -> None:
    joined = "tea \u1112\u1161\u11ab"  # cleaning makes one letter of these three
    _, look = look_inside(bot, joined, "fine", "ok")
    assert {place[0] for _, place in look["source"] if place} == {1, 2}


def clean_but_accents(text: str) -> str:
    return text.replace("\u200b", "").replace("\u202e", "")


@pytest.mark.parametrize("level", ["bpe", "unigram", "word", "char"])
def test_places_follow_each_kind_of_token(level: Any) -> None:
    text = "How are you, my dear? (It's LATE.)"
    tokenizer = train_tokenizer([text] * 3, level=level, min_frequency=1)
    sizes = {"vocab_size": len(tokenizer), "decoder_vocab_size": len(tokenizer)}
    bot = Bot(Engine(tiny_model(attention="dot", **sizes, **ids_of(tokenizer)), tokenizer))
    reply, look = look_inside(bot, text)
    found = placed(look, [text])
    assert "".join("".join(piece for _, piece in found).split()) == "".join(text.split())
    assert [token.strip() for token, _ in found] == [piece.lower().strip() for _, piece in found]
    ids = encode_reply(tokenizer, "(it's late), my dear?", 64)
    seen = explain_reply(bot.model, reply.source_ids, ids)
    spelled = [tokenizer.decode([token]) for token in ids]
    known = {"text": reply_text(tokenizer, ids), "token_ids": ids, "tokens": spelled}
    said = replace(reply, **known, explanation=seen)
    asked = [{"role": "user", "content": text}]
    words = inspect_reply(said, asked, tokenizer, bot.model.config)["words"]
    spots = [(token.strip(), *spot) for token, spot, _ in words if spot]
    assert [said.text[start:end].lower() for _, start, end in spots] == [t for t, *_ in spots]
    assert "".join(token for token, *_ in spots) == "(it'slate),mydear?"
    begins = [said.text[:begin].lower() for *_, begin in words]
    assert [tokenizer.decode(ids[:at]) for at in range(len(ids))] == begins


def ids_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names} | {"decoder_start_token_id": 2}


def test_the_letters_of_a_reply_belong_to_its_words(bot: Bot) -> None:
    reply, look = look_inside(bot, "hello")
    pieces = [
        reply.text[start:end] for _, spot, _ in look["words"] if spot for start, end in [spot]
    ]
    assert "".join(pieces) == "".join(reply.text.split())


def test_half_a_letter_at_the_end_costs_no_other_word_its_place(bot: Bot) -> None:
    reply, _ = look_inside(bot, "how are you?")
    half = bot.tokenizer("é", add_special_tokens=False)["input_ids"][0]
    ids = [*reply.token_ids[:-1], half]
    text = reply_text(bot.tokenizer, ids)
    assert text.endswith("\N{REPLACEMENT CHARACTER}")
    seen = explain_reply(bot.model, reply.source_ids, ids)
    tokens = [bot.tokenizer.decode([token]) for token in ids]
    changed = replace(reply, text=text, token_ids=ids, tokens=tokens, explanation=seen)
    asked = [{"role": "user", "content": "how are you?"}]
    words = inspect_reply(changed, asked, bot.tokenizer, bot.model.config)["words"]
    assert all(spot is not None for token, spot, _ in words[:-1] if token.isalpha())


def test_what_was_cut_is_said(bot: Bot) -> None:
    texts = ["hello", "fine", "how are you?"]
    _, whole = look_inside(bot, *texts)
    assert (whole["first"], whole["partly"]) == (0, False)
    turns = [at + 1 for at, (token, _) in enumerate(whole["source"]) if token == "<end>"]
    length = len(whole["source"])
    _, last = look_inside(bot, *texts, max_source_tokens=length - turns[1] + 1)
    assert (last["first"], last["partly"], len(last["shares"])) == (2, False, 1)
    _, most = look_inside(bot, *texts, max_source_tokens=length - 1)
    assert (most["first"], most["partly"]) == (1, False)
    _, part = look_inside(bot, *texts, max_source_tokens=6)
    assert (part["first"], part["partly"]) == (2, True)
    assert [token for token, _ in part["source"]][1:] == [t for t, _ in whole["source"]][-5:]
    assert [place for _, place in part["source"]][1:] == [p for _, p in whole["source"]][-5:]


def test_a_local_window_comes_with_its_centres(make_bot: MakeBot) -> None:
    for window in ("local-m", "local-p"):
        local = make_bot(attention="general", attention_window=window, attention_window_size=2)
        _, look = look_inside(local, "how are you? tell me a joke")
        assert (look["window"], look["reach"]) == (window, 2)
        for centre, row in zip(look["centres"], look["weights"], strict=True):
            seen = [at for at, weight in enumerate(row) if weight]
            assert all(abs(at - centre) <= 2 for at in seen)
    assert look_inside(make_bot(attention="general"), "hello")[1]["centres"] is None


def test_a_model_without_attention_has_the_rest(make_bot: MakeBot) -> None:
    _, look = look_inside(make_bot(attention="none"), "hello")
    assert look["weights"] is None
    assert look["entropy"] is None
    assert len(look["alternatives"]) == len(look["probabilities"]) == len(look["words"])


def test_candidates_come_with_their_scores(bot: Bot) -> None:
    assert look_inside(bot, "hello")[1]["candidates"] == []
    beams = Choice(GenerationPreset(num_beams=3, max_new_tokens=6))
    reply, look = look_inside(bot, "hello", choice=beams)
    assert [text for text, _ in look["candidates"]] == reply.candidates
    assert [score for _, score in look["candidates"]] == pytest.approx(reply.scores, abs=1e-6)
    assert (len(reply.scores), look["score"]) == (3, strings.SCORE)
    drawn = Choice(GenerationPreset(temperature=0.9, num_candidates=3, max_new_tokens=6))
    assert look_inside(bot, "hello", choice=drawn)[1]["score"] == strings.RANK


def test_a_fixed_text_says_that_no_model_said_it(bot: Bot) -> None:
    reply, look = look_inside(bot, "I want to kill myself")
    assert reply.explanation is None
    assert (look["hint"], look["text"]) == (strings.FIXED, reply.text)
    assert "words" not in look


def test_a_slur_is_neither_shown_nor_offered(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    reply, look = look_inside(bot, "hello")
    said = re.findall(r"[^\W_]+", reply.text.lower())[0]
    names = [name.strip() for name, _, _ in look["alternatives"][0]]
    other = next(name for name in names if name.isalpha() and name != said)
    lists = safety._lists()

    def forbid(word: str) -> None:
        forbidden = replace(lists, slurs=frozenset({safety.hashed(word)}))
        monkeypatch.setattr(safety, "_lists", lambda: forbidden)

    forbid(other)
    _, without = look_inside(bot, "hello")
    left = [name.strip() for name, _, _ in without["alternatives"][0]]
    assert left == [name for name in names if name != other]
    forbid(said)
    withheld, hidden = look_inside(bot, "hello")
    assert (withheld.text, withheld.tokens, withheld.explanation) == (lists.withheld, [], None)
    assert (withheld.token_ids, withheld.candidates) == ([], [lists.withheld])
    assert hidden["hint"] == strings.FIXED


def test_an_unsure_reply_shows_what_it_would_have_been(bot: Bot) -> None:
    _, look = look_inside(bot, "hello", min_confidence=1.0, fallback="Ask my boss.")
    assert (look["instead"], look["text"]) == (True, "Ask my boss.")
    assert not any(spot for _, spot, _ in look["words"])
    assert not any(added for others in look["alternatives"] for _, _, added in others)
    assert not look_inside(bot, "hello")[1]["instead"]


def test_the_note_says_how_long_it_took(bot: Bot) -> None:
    reply = replace(look_inside(bot, "hello")[0], timing=Timing(0.1, 0.25, 2))
    assert note(reply) == "2 tokens · 8 a second · the first after 0.10 s"
    assert note(replace(reply, timing=Timing(0, 0, 0))) == ""
