"""Choosing replies: distributions, cuts, limits, batches, beams."""

import copy
import math
import threading
from collections import Counter

import pytest
import torch
from chat_helpers import NEVER, Chatbot, few_dialogues, make_chatbot, make_fixed_chatbot
from torch import Tensor
from transformers import PreTrainedTokenizerFast, TextIteratorStreamer

from chatbot.decoding import (
    NEUTRAL,
    GumbelNoise,
    generate,
    generate_replies,
    rank_candidates,
    reply_text,
)
from chatbot.explain import explain_reply
from chatbot.presets import GenerationPreset, generation_presets
from chatbot.tokenization import encode_context

FREE = {"no_repeat_ngram_size": 0, "min_new_tokens": 0}
GREEDY = GenerationPreset(max_new_tokens=12, **FREE)
P = {"you": 0.4, "Ġlike": 0.3, "Ġthat": 0.2, "Ġpeople": 0.1}


def chi_square(observed: Tensor, expected: Tensor) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def sequences(
    chatbot: Chatbot, contexts: list[list[int]], preset: GenerationPreset, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return generate(*chatbot, contexts, preset, generator).sequences[:, 1:]


def until_end(tokens: list[int]) -> list[int]:
    """Without padding, for which beam search takes `<end>`."""
    end = 3
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def test_the_largest_noisy_logit_has_the_distribution_of_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, float("-inf")])
    noise = GumbelNoise(torch.Generator().manual_seed(0))
    drawn = noise(torch.zeros(50_000, 1), logits.expand(50_000, 6)).argmax(1)
    counts = drawn.bincount(minlength=6).float()
    assert counts[5] == 0
    expected = logits.softmax(0) * 50_000
    # with 4 degrees of freedom, more than 18.5 comes once in a thousand seeds
    assert chi_square(counts[:5], expected[:5]) < 18.5


@pytest.fixture(scope="module")
def fixed() -> Chatbot:
    """A model that gives each token the probability in P, whatever came before."""
    return make_fixed_chatbot(P)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_p": 0.65}, [4 / 7, 3 / 7, 0, 0]),  # the fewest that hold 65 % together
        ({"top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"top_p": 0.3}, [1, 0, 0, 0]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),  # squares
        ({"temperature": 0.5, "top_k": 2}, [16 / 25, 9 / 25, 0, 0]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
    ],
)
def test_draws_follow_the_preset(
    fixed: Chatbot, settings: dict[str, float], expected: list[float]
) -> None:
    preset = GenerationPreset(**{"temperature": 1.0, "max_new_tokens": 50, **FREE, **settings})
    drawn = sequences(fixed, [[4, 300, 3, 5]] * 100, preset)
    counts = Counter(fixed[1].convert_ids_to_tokens(drawn.flatten().tolist()))
    assert counts.keys() == {token for token, share in zip(P, expected, strict=True) if share}
    observed = torch.tensor([float(counts[token]) for token in P if counts[token]])
    wanted = torch.tensor([share * counts.total() for share in expected if share])
    # with 3 degrees of freedom, more than 16.3 comes once in a thousand seeds
    assert chi_square(observed, wanted) < 16.3


def conversations(count: int = 16) -> list[list[dict[str, str]]]:
    """Beginnings of conversations, of different lengths, that end with the user."""
    cuts = (1, 3)
    dialogues = few_dialogues(train=count, held_out=0)[:count]
    return [list(turns[: cuts[i % 2]]) for i, turns in enumerate(dialogues)]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["greedy", "precise"])
def test_a_batch_says_what_each_would_hear_alone(tiny_chatbot: Chatbot, name: str) -> None:
    preset = generation_presets()[name]
    together = generate_replies(*tiny_chatbot, conversations(8), preset)
    alone = [generate_replies(*tiny_chatbot, [one], preset)[0] for one in conversations(8)]
    assert together == alone
    assert len(set(together)) > 1


def test_one_seed_gives_one_batch_in_threads_too(tiny_chatbot: Chatbot) -> None:
    preset = GenerationPreset(temperature=1.0, max_new_tokens=12)

    def replies(seed: int) -> list[str]:
        return generate_replies(*tiny_chatbot, conversations(4), preset, seed=seed)

    expected = {seed: replies(seed) for seed in range(3)}
    assert expected[0] != expected[1]
    found: dict[int, list[str]] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: replies(seed)}))
        for seed in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@pytest.mark.parametrize("name", generation_presets())
def test_special_tokens_never_come(name: str) -> None:
    model, tokenizer = make_chatbot()
    with torch.no_grad():
        model.lm_head.bias[:6] = 20.0  # the model wants nothing else
    drawn = sequences((model, tokenizer), [[4, 300, 3, 5]] * 4, generation_presets()[name])
    ended = drawn == tokenizer.eos_token_id
    assert ended.any(1).all()
    assert ended.float().argmax(1).min() >= generation_presets()[name].min_new_tokens
    special = set(tokenizer.all_special_ids) - {tokenizer.eos_token_id}
    for row in drawn.tolist():
        said = row[: row.index(tokenizer.eos_token_id)]
        assert said
        assert not special & set(said)


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {}, {"num_beams": 3}])
def test_no_trigram_comes_twice(settings: dict[str, float]) -> None:
    chatbot = make_fixed_chatbot({"you": 0.98, "Ġlike": 0.015, "Ġthat": 0.005})
    preset = GenerationPreset(**{"max_new_tokens": 24, **settings})
    for row in sequences(chatbot, [[4, 300, 3, 5]] * 3, preset).tolist():
        said = until_end(row)
        trigrams = list(zip(said, said[1:], said[2:], strict=False))
        assert len(trigrams) == len(set(trigrams)) > 5


@pytest.mark.parametrize("limit", [1, 5, 512])
def test_replies_end_at_the_limit(limit: int) -> None:
    chatbot = make_chatbot(end_bias=NEVER)
    preset = GenerationPreset(max_new_tokens=limit, **FREE)
    assert sequences(chatbot, [[4, 300, 3, 5]], preset).shape == (1, limit)


def test_greedy_is_the_likeliest_token_at_each_step(tiny_chatbot: Chatbot) -> None:
    model, tokenizer = tiny_chatbot
    for conversation in conversations(4):
        context = encode_context(tokenizer, conversation, 96)
        said = [tokenizer.bos_token_id]
        while len(said) < 13 and said[-1] != tokenizer.eos_token_id:
            with torch.inference_mode():
                logits = model(
                    input_ids=torch.tensor([context]), decoder_input_ids=torch.tensor([said])
                ).logits[0, -1]
            logits = logits.clone()
            logits[[i for i in range(6) if i != tokenizer.eos_token_id]] = float("-inf")
            said.append(int(logits.argmax()))
        assert sequences(tiny_chatbot, [context], GREEDY)[0].tolist() == said[1:]


def test_greedy_is_what_transformers_calls_greedy(tiny_chatbot: Chatbot) -> None:
    model, tokenizer = tiny_chatbot
    contexts = [encode_context(tokenizer, turns, 96) for turns in conversations(6)]
    batch = tokenizer.pad({"input_ids": contexts}, return_tensors="pt")
    expected = model.generate(
        **batch,
        do_sample=False,
        max_length=None,
        max_new_tokens=12,
        suppress_tokens=[i for i in range(6) if i != tokenizer.eos_token_id],
    )
    assert torch.equal(sequences(tiny_chatbot, contexts, GREEDY), expected[:, 1:])


def test_beams_come_best_first_by_what_the_model_finds_likely(tiny_chatbot: Chatbot) -> None:
    model, tokenizer = tiny_chatbot
    preset = GenerationPreset(num_beams=5, length_penalty=0.0, max_new_tokens=10, **FREE)
    contexts = [encode_context(tokenizer, turns, 96) for turns in conversations(2)]
    output = generate(model, tokenizer, contexts, preset, torch.Generator(), candidates=5)
    assert output.sequences.shape[0] == 10
    for item, context in enumerate(contexts):
        rows = slice(5 * item, 5 * item + 5)
        candidates = [until_end(row) for row in output.sequences[rows, 1:].tolist()]
        assert len({tuple(candidate) for candidate in candidates}) == 5
        scores = [
            float(explain_reply(model, context, candidate).log_probabilities.sum())
            for candidate in candidates
        ]
        assert scores == sorted(scores, reverse=True)
        # searching finds what is at least as likely as following the best token
        greedy = sequences(tiny_chatbot, [context], GenerationPreset(max_new_tokens=10, **FREE))
        followed = explain_reply(model, context, greedy[0].tolist()).log_probabilities.sum()
        assert scores[0] >= followed - 1e-4


COMPARED = GenerationPreset(
    temperature=1.0,
    num_candidates=6,
    context_weight=0.5,
    length_weight=0.25,
    copy_weight=2.0,
    max_new_tokens=10,
)


def heard(tokenizer: PreTrainedTokenizerFast, *turns: str) -> list[int]:
    """The context of a reply to the last of these turns, the user's first."""
    roles = ("user", "assistant") * len(turns)
    messages = [{"role": r, "content": text} for r, text in zip(roles, turns, strict=False)]
    return encode_context(tokenizer, messages, 96)


def sequence(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> Tensor:
    """A generated reply, (1, 1 + tokens), without `<end>`."""
    return torch.tensor([tokenizer.convert_tokens_to_ids(["<go>", *tokens])])


def test_a_score_is_the_formula_by_hand(fixed: Chatbot) -> None:
    """Where a context changes nothing, (1 - 0.5) log p + 0.25 tokens are left."""
    model, tokenizer = fixed
    said = sequence(tokenizer, "you", "Ġlike", "Ġthat", "<pad>", "<pad>")
    score = rank_candidates(model, tokenizer, [heard(tokenizer, "hi")], said, COMPARED)
    by_hand = 0.5 * math.log(0.4 * 0.3 * 0.2) + 0.25 * 3
    assert score.tolist() == pytest.approx([by_hand], abs=1e-4)


@pytest.mark.parametrize(
    ("turns", "copied"),
    [
        (["you like that?"], 1.0),
        (["people like that people"], 0.5),  # one of the two trigrams
        (["you like"], 0.0),  # two words are a name, perhaps
        (["you like that people", "hm", "why?"], 0.0),  # told before
    ],
)
def test_what_the_user_said_last_is_not_said_back(
    fixed: Chatbot, turns: list[str], copied: float
) -> None:
    tokenizer = fixed[1]
    tokens = ["you", "Ġlike", "Ġthat", *(["Ġpeople"] if copied == 0.5 else [])]
    said = sequence(tokenizer, *tokens)
    free = GenerationPreset(temperature=1.0, num_candidates=6)
    dear = GenerationPreset(temperature=1.0, num_candidates=6, copy_weight=3.0)
    context = heard(tokenizer, *turns)
    first, second = (rank_candidates(*fixed, [context], said, preset) for preset in (free, dear))
    assert float(first - second) == pytest.approx(3.0 * copied, abs=1e-5)


def test_the_best_of_six_is_chosen(tiny_chatbot: Chatbot) -> None:
    """Scores equal those of one reply at a time, and of the replies no other has a higher one."""
    model, tokenizer = tiny_chatbot
    contexts = [encode_context(tokenizer, turns, 96) for turns in conversations(3)]
    output = generate(*tiny_chatbot, contexts, COMPARED, torch.Generator(), candidates=6)
    everyday = [heard(tokenizer, text) for text in NEUTRAL]
    for item, context in enumerate(contexts):
        scores = output.sequences_scores[6 * item : 6 * item + 6].tolist()
        for row, score in zip(output.sequences[6 * item :, 1:].tolist(), scores, strict=False):
            said = [token for token in row if token != tokenizer.pad_token_id]
            log_p, *others = (
                float(explain_reply(model, each, said).log_probabilities.double().sum())
                for each in (context, *everyday)
            )
            general = math.log(sum(math.exp(other) for other in others) / len(others))
            assert score == pytest.approx(log_p - 0.5 * general + 0.25 * len(said), abs=1e-3)
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > scores[-1]
    best = generate(*tiny_chatbot, contexts, COMPARED, torch.Generator()).sequences
    assert best.tolist() == output.sequences[::6].tolist()


def test_a_seed_chooses_the_same_of_many(tiny_chatbot: Chatbot) -> None:
    first, again, other = (
        generate_replies(*tiny_chatbot, conversations(3), COMPARED, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_comparing_replies_cannot_stream_nor_translate(tiny_chatbot: Chatbot) -> None:
    model, tokenizer = tiny_chatbot
    streamer = TextIteratorStreamer(tokenizer)
    message = r"num_candidates=6 is not possible here; allowed: 1 with a streamer, and for parallel"
    with pytest.raises(ValueError, match=message):
        generate(model, tokenizer, [[5]], COMPARED, torch.Generator(), streamer=streamer)
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    with pytest.raises(ValueError, match=message):
        generate(model, plain, [[5]], COMPARED, torch.Generator())


def test_replies_read_as_people_write(tiny_chatbot: Chatbot) -> None:
    _, tokenizer = tiny_chatbot
    ids = tokenizer("i think so. do you?")["input_ids"]
    pad, go = tokenizer.pad_token_id, tokenizer.bos_token_id
    assert reply_text(tokenizer, [go, *ids, pad, pad]) == "I think so. Do you?"
    assert reply_text(tokenizer, torch.tensor(ids)) == "I think so. Do you?"
