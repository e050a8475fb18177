"""Looking inside a reply agrees with what the model does step by step."""

import pytest
import torch
from chat_helpers import Chatbot, make_chatbot

from chatbot.explain import explain_reply

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
