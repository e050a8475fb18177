"""Models whose replies vary, and what `generate()` says worked out in the plainest way."""

from collections.abc import Callable
from functools import cache
from itertools import count, islice
from typing import Any

import torch
from modeling_helpers import END, GO, PAD, SOURCE, VOCABULARY, Settings, tiny_model
from torch import Tensor

from chatbot.modeling import RnnSeq2SeqForConditionalGeneration

Model = RnnSeq2SeqForConditionalGeneration
# The scores of the next token (V,), the reply so far and the source give new scores.
Rule = Callable[[Tensor, list[int], list[int]], Tensor]

KINDS: list[Settings] = [
    {"attention": "none"},
    {"attention": "general", "input_feeding": True},
    {"cell_type": "gru", "attention": "concat", "attention_window": "local-p"},
    {"cell_type": "gru", "attention": "additive", "attention_window": "recent"},
    {"attention": "general", "copy": True},
]
ADDITIVE, COPYING = KINDS[3:]

ITEM = SOURCE[:1]
OTHER = torch.arange(4, 12)[None]
STEPS = 10
FLAGS = {f"output_{name}": True for name in ("scores", "logits", "attentions", "hidden_states")}
NAMED = {"return_dict_in_generate": True}
SCORED = NAMED | {"output_scores": True}
CLOSE = {"rtol": 0, "atol": 1e-5}


def listening_model(seed: int, **settings: Any) -> Model:
    """A model that heeds what it has said, and never says `<pad>`."""
    model = tiny_model(seed, **settings)
    with torch.no_grad():
        for table in {model.get_input_embeddings(), model.model.get_decoder_input_embeddings()}:
            table.weight *= 3
        model.lm_head.bias.zero_()
        model.lm_head.bias[PAD] = -1e4
    return model


@cache
def lively_seeds(settings: tuple[tuple[str, Any], ...]) -> list[int]:
    """Seeds of three models that say five words and more before they end, if they do."""

    def is_lively(seed: int) -> bool:
        reply = generated(listening_model(seed, **dict(settings)))[0].tolist()
        return len(set(reply)) > 4 and END not in reply

    return list(islice(filter(is_lively, count()), 3))


def speaker(settings: Settings, which: int = 0, end: float = 0.0) -> Model:
    """One of three lively models of a kind, the score of `<end>` raised by `end`."""
    model = listening_model(lively_seeds(tuple(settings.items()))[which], **settings)
    with torch.no_grad():
        model.lm_head.bias[END] += end
    return model


def generated(model: Model, source: Tensor | None = ITEM, **options: Any) -> Any:
    """What `generate` returns, without chance and with all tokens real unless asked otherwise."""
    if source is not None:
        options = {"attention_mask": torch.ones_like(source)} | options
    if "max_length" not in options:
        options = {"max_new_tokens": STEPS} | options
    return model.generate(source, **{"do_sample": False} | options)


def replies(sequences: Tensor) -> list[list[int]]:
    """Each sequence up to its first `<end>`."""
    rows = sequences.tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


@torch.no_grad()
def next_scores(model: Model, reply: list[int], source: Tensor = ITEM) -> Tensor:
    """The model's own scores of the next token, everything read anew, (V,)."""
    return model(source, decoder_input_ids=torch.tensor([reply])).logits[0, -1]


def by_hand(
    model: Model, rule: Rule | None = None, begun: tuple[int, ...] = (GO,), source: Tensor = ITEM
) -> list[int]:
    """Greedy search in its plainest form, the scores changed by a rule."""
    reply = list(begun)
    while len(reply) < len(begun) + STEPS and reply[-1] != END:
        scores = next_scores(model, reply, source)
        if rule is not None:
            scores = rule(scores.clone(), reply, source[0].tolist())
        reply.append(int(scores.argmax()))
    return reply


@torch.no_grad()
def beams_by_hand(model: Model, beams: int, steps: int) -> list[int]:
    """Beam search without an end, every prefix read anew."""
    found = [(0.0, [GO])]
    for _ in range(steps):
        longer = [
            (score + more, [*reply, token])
            for score, reply in found
            for token, more in enumerate(next_scores(model, reply).log_softmax(-1).tolist())
        ]
        found = sorted(longer, reverse=True)[:beams]
    return found[0][1]


@torch.no_grad()
def own_scores(
    model: Model, sequences: Tensor, source: Tensor = ITEM, attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The model's log-probability of each token after `<go>`, 0 after `<end>`; their number."""
    logits = model(source, attention_mask, decoder_input_ids=sequences[:, :-1]).logits
    ended = (sequences[:, 1:] == END).long()
    said = ended.cumsum(1) - ended == 0
    chosen = logits.log_softmax(-1).gather(2, sequences[:, 1:, None])[..., 0]
    return chosen * said, said.sum(1)


class Reads:
    """Listens to what the decoder reads: how many tokens at a time, and which."""

    def __init__(self, model: Model):
        self.widths: list[int] = []
        self.tokens: list[list[int]] = []
        model.register_forward_pre_hook(self._hear, with_kwargs=True)

    def _hear(self, model: Model, args: Any, inputs: dict[str, Any]) -> None:
        self.widths.append(inputs["decoder_input_ids"].shape[1])
        self.tokens += inputs["decoder_input_ids"].tolist()

    def forget(self) -> None:
        self.widths.clear()
        self.tokens.clear()


# What a model says first in 40 of 100 cases, in 30, ... Its entropy is 1.392.
SHARES = {4: 0.40, 5: 0.30, 6: 0.15, 7: 0.10, 8: 0.05}
SAMPLING = {"do_sample": True, "top_k": 0}


def say_in_shares(model: Model) -> Tensor:
    """Let a model always say the words of SHARES; their probabilities, (V,)."""
    share = torch.zeros(VOCABULARY)
    share[list(SHARES)] = torch.tensor(list(SHARES.values()))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.copy_(share.log().clamp(min=-1e4))
        if model.config.copy:
            model.model.decoder.copy_gate.bias.fill_(1e4)
    return share
