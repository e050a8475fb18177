"""Looking inside a reply agrees with what the model does step by step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from chat_helpers import Chatbot, make_chatbot
from modeling_helpers import tiny_model
from transformers import PreTrainedTokenizerFast as Tokenizer

import chatbot
from chatbot.chat import ChatSession
from chatbot.explain import ExplainedReply, explain, explain_reply
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import END, train_tokenizer

CONTEXT = [4, 300, 301, 302, 3, 5]
REPLY = [310, 311, 312, 313, 3]


@pytest.mark.parametrize("attention", ["dot", "general", "concat", "additive"])
def test_attention_is_a_distribution_over_the_source(attention: str) -> None:
    model, _ = make_chatbot(attention=attention)
    explanation = explain_reply(model, CONTEXT, REPLY)
    assert explanation.attention is not None
    assert explanation.attention.shape == (len(REPLY), len(CONTEXT))
    assert (explanation.attention >= 0).all()
    torch.testing.assert_close(explanation.attention.sum(1), torch.ones(len(REPLY)))


def test_no_attention_is_none() -> None:
    explanation = explain_reply(make_chatbot(attention="none")[0], CONTEXT, REPLY)
    assert explanation.attention is None
    assert explanation.log_probabilities.shape == (len(REPLY),)


@pytest.mark.parametrize("settings", [{}, {"input_feeding": True}, {"attention": "additive"}])
def test_probabilities_are_those_of_single_steps(settings: dict[str, object]) -> None:
    model, tokenizer = make_chatbot(**settings)
    explanation = explain_reply(model, CONTEXT, REPLY)
    cache, previous, encoded = None, tokenizer.bos_token_id, None
    for position, token in enumerate(REPLY):
        with torch.inference_mode():
            output = model(
                input_ids=torch.tensor([CONTEXT]),
                encoder_outputs=encoded,
                decoder_input_ids=torch.tensor([[previous]]),
                past_key_values=cache,
                use_cache=True,
                output_attentions=True,
            )
        cache, previous = output.past_key_values, token
        torch.testing.assert_close(
            explanation.log_probabilities[position],
            output.logits[0, 0].log_softmax(-1)[token],
            rtol=1e-4,
            atol=1e-5,
        )
        assert explanation.attention is not None
        torch.testing.assert_close(
            explanation.attention[position], output.cross_attentions[0][0, 0, 0]
        )


def test_the_sum_is_the_loss(tiny_chatbot: Chatbot) -> None:
    model, _ = tiny_chatbot
    explanation = explain_reply(model, CONTEXT, REPLY)
    with torch.inference_mode():
        loss = model(input_ids=torch.tensor([CONTEXT]), labels=torch.tensor([REPLY])).loss
    torch.testing.assert_close(-explanation.log_probabilities.mean(), loss)


def test_alternatives_are_the_likeliest_of_the_softmax() -> None:
    model, _ = make_chatbot()
    explanation = explain_reply(model, CONTEXT, REPLY)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([CONTEXT]), labels=torch.tensor([REPLY])).logits[0]
    best = logits.softmax(-1).sort(descending=True)
    torch.testing.assert_close(explanation.alternatives, best.indices[:, :5])
    torch.testing.assert_close(explanation.alternative_probabilities, best.values[:, :5])


def test_entropy_is_zero_for_one_token_and_a_logarithm_for_all() -> None:
    attention = torch.tensor([[0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25]])
    known = explain_reply(make_chatbot()[0], CONTEXT, REPLY)
    expected = torch.tensor([0.0, np.log(3), 1.5 * np.log(2)], dtype=torch.float32)
    torch.testing.assert_close(replace(known, attention=attention).entropy, expected)
    assert replace(known, attention=None).entropy is None


@pytest.mark.parametrize("fed", [False, True])
def test_a_predicted_centre_is_equation_9(fed: bool) -> None:
    settings = {"attention_window": "local-p", "attention_window_size": 2, "input_feeding": fed}
    model, _ = make_chatbot(**settings)
    explanation = explain_reply(model, CONTEXT, REPLY)
    window, states = model.model.decoder.attention.window, []
    handle = window.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    explain_reply(model, CONTEXT, REPLY)
    handle.remove()
    asked = torch.cat(states[:-1] if fed else states[:1], dim=1)[0]  # the last call asks again
    share = torch.sigmoid(window.centre(torch.tanh(window.position(asked)))[:, 0])
    torch.testing.assert_close(explanation.centres, len(CONTEXT) * share.detach())


def test_a_monotone_centre_moves_on_till_the_last_token() -> None:
    model, _ = make_chatbot(attention_window="local-m", attention_window_size=1)
    centres = explain_reply(model, CONTEXT[:3], REPLY).centres
    torch.testing.assert_close(centres, torch.tensor([0.0, 1.0, 2.0, 2.0, 2.0]))
    assert explain_reply(make_chatbot()[0], CONTEXT, REPLY).centres is None


# explain()


SAID = "how are you today?"


@pytest.fixture(scope="module")
def translator() -> tuple[RnnSeq2SeqForConditionalGeneration, Tokenizer, Tokenizer]:
    """A random model of parallel text: two vocabularies of one size, with other words in them."""
    sides = [["il gatto dorme", "stai attento"], ["the cat is asleep", "be careful"]]
    tokenizers = [train_tokenizer(side * 3, vocab_size=280) for side in sides]
    for tokenizer in tokenizers:
        tokenizer.chat_template = None
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 2}
    model = tiny_model(vocab_size=280, share_embeddings=False, attention="general", **ids)
    return model, tokenizers[0], tokenizers[1]


@pytest.mark.parametrize("reply", [None, "I am fine."])
def test_arrays_are_the_models_own(tiny_chatbot: Chatbot, reply: str | None) -> None:
    model, tokenizer = tiny_chatbot
    explained = explain(model, tokenizer, SAID, reply)
    asked = [{"role": "user", "content": SAID}]
    source = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    if reply is None:
        generated = model.generate(**source, do_sample=False, max_new_tokens=48, min_new_tokens=2)
        labels = generated[:, 1:]
    else:
        labels = tokenizer(reply, return_tensors="pt").input_ids
    with torch.inference_mode():
        output = model(**source, labels=labels, output_attentions=True)
    torch.testing.assert_close(
        torch.from_numpy(explained.attention), output.cross_attentions[0][0, 0]
    )
    expected = output.logits.softmax(-1).gather(2, labels[..., None])[0, :, 0]
    torch.testing.assert_close(torch.from_numpy(explained.probabilities), expected)
    np.testing.assert_allclose(explained.attention.sum(1), 1, rtol=1e-5)


def test_labels_are_the_tokens_that_were_read_and_said(tiny_chatbot: Chatbot) -> None:
    explained = explain(*tiny_chatbot, f"  {SAID.upper()}\n", "I am  fine.")
    assert "".join(explained.source_tokens) == f"<user>{SAID}<end><bot>"
    assert "".join(explained.tokens) == "i am fine.<end>"
    assert explained.attention.shape == (len(explained.tokens), len(explained.source_tokens))


def test_the_whole_conversation_is_read_as_a_chat_reads_it(tiny_chatbot: Chatbot) -> None:
    session = ChatSession(*tiny_chatbot, "greedy")
    session.reply("hello")
    earlier = list(session.messages)
    said = session.reply(SAID)
    explained = explain(*tiny_chatbot, [*earlier, {"role": "user", "content": SAID}])
    assert explained.source_tokens == said.source_tokens
    assert explained.tokens == said.tokens
    np.testing.assert_allclose(explained.attention, said.attention.numpy(), rtol=1e-5)
    assert said.confidence == pytest.approx(float(np.exp(np.log(explained.probabilities).mean())))


def test_a_translator_reads_one_vocabulary_and_writes_the_other(
    translator: tuple[RnnSeq2SeqForConditionalGeneration, Tokenizer, Tokenizer],
) -> None:
    model, source, target = translator
    explained = explain(model, source, "stai attento", "be careful", target_tokenizer=target)
    assert "".join(explained.source_tokens) == "stai attento<end>"
    assert "".join(explained.tokens) == "be careful<end>"
    ids = [of.convert_tokens_to_ids(END) for of in (source, target)]
    assert ids == [3, 3]
    low = explain_reply(model, source("stai attento").input_ids, target("be careful").input_ids)
    np.testing.assert_array_equal(explained.attention, low.attention.numpy())
    free = explain(model, source, "stai attento", target_tokenizer=target)
    assert free.attention.shape == (len(free.tokens), len(explained.source_tokens))
    with pytest.raises(ValueError, match=r"target_tokenizer=None; allowed: .*load_target_tok"):
        explain(model, source, "stai attento")


def test_the_figure_shows_weights_and_real_tokens(tiny_chatbot: Chatbot) -> None:
    explained = explain(*tiny_chatbot, "it is $5 or $6", "a  b")
    assert " " in explained.source_tokens
    figure = explained.figure()
    axes, bar = figure.axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), explained.attention)
    assert image.get_clim() == (0, 1)
    seen = [label.get_text() for label in axes.get_xticklabels()]
    assert seen == [token.strip() or "␣" for token in explained.source_tokens]
    assert not any(label.get_parse_math() for label in axes.get_xticklabels())
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == [token.strip() for token in explained.tokens]
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("source", "reply", "weight")
    figure.canvas.draw()


def test_without_attention_there_is_nothing_to_draw() -> None:
    explained = explain(*make_chatbot(attention="none"), SAID, "fine.")
    assert explained.attention is None
    assert len(explained.probabilities) == len(explained.tokens)
    with pytest.raises(ValueError, match=r"attention='none'.*dot, general, concat or additive"):
        explained.figure()


@pytest.mark.parametrize(
    "messages", ["", " \n", [], [{"role": "assistant", "content": "hello"}]], ids=repr
)
def test_what_cannot_be_answered_is_refused(tiny_chatbot: Chatbot, messages: Any) -> None:
    with pytest.raises(ValueError, match=r"messages=.*allowed: what ends with words of the user"):
        explain(*tiny_chatbot, messages)


def test_the_package_names_it() -> None:
    assert chatbot.ExplainedReply is ExplainedReply
