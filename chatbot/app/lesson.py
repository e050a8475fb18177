"""The page "How it works": what the model computes for one sentence, step by step, in numbers.

The steps are taken by the model's own parts, one target token at a time. What a reader changes (no
attention, another weight) travels as an argument, and reaches the decoder as another context.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast as Tokenizer

from chatbot.app import strings
from chatbot.data import clean_text
from chatbot.decoding import reply_text, unspoken_tokens
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration as Model
from chatbot.modeling import modeling_rnn_seq2seq as parts
from chatbot.modeling.copying_rnn_seq2seq import Pointing, mixed_log_probabilities
from chatbot.presets import GenerationPreset
from chatbot.tokenization import encode_context, encode_turn

MAX_SOURCE_TOKENS = 40  # more words are no lesson
MAX_REPLY_TOKENS = 24
MAX_CHARACTERS = 400
SHOWN_VALUES = 8  # of a vector
SHOWN_WORDS = 5
FACTS = ("attention", "bidirectional", "bridge", "copy")  # of the configuration
SIZES = ("decoder_vocab_size", "embedding_size", "hidden_size", "memory_size")

# One token of the reply: `state` after its input (H,), `log_p` of each next token (V,), `gate` of
# copying; with attention `scores`, lowest out of sight, `weights` (S,) and `context` (M,).
Step = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model to learn from, and the tokenizers of what it reads and what it writes."""

    model: Model
    tokenizer: Tokenizer
    target_tokenizer: Tokenizer


@dataclass(frozen=True)
class Change:
    """What a reader changes: `off`, the context is zero at every step and nothing is copied; or, at
    one `step`, the `weight` of one source `position`."""

    off: bool = False
    step: int | None = None
    position: int = 0
    weight: float = 0.0

    def weights(self, scores: Tensor) -> Tensor:
        """Attention of scores (S,). The other positions share what is left as their softmax says.

        Raises ValueError where the position is out of sight, or alone in it.
        """
        lowest = torch.finfo(scores.dtype).min
        seen, here = scores > lowest, torch.arange(len(scores)) == self.position
        if not seen[self.position] or seen.sum() == 1:
            raise ValueError(strings.LESSON_UNSEEN)
        rest = torch.softmax(scores.masked_fill(here, lowest), 0)
        return torch.where(here, self.weight, rest * (1 - self.weight))


@torch.inference_mode()
def decode(
    subject: Subject,
    encoded: parts.RnnSeq2SeqEncoderOutput,
    reply: Sequence[int] | None,
    change: Change | None = None,
) -> tuple[list[int], list[Step]]:
    """The tokens of the reply and their steps, forced along `reply`; None: along the likeliest
    token of each step up to `<end>`, as the presets have it."""
    model, tokenizer, decoder = subject.model, subject.target_tokenizer, subject.model.model.decoder
    table, never = model.model.get_decoder_input_embeddings(), unspoken_tokens(tokenizer)
    memory = decoder._memory(encoded.last_hidden_state, None, None)
    states, _ = decoder._first_states(encoded, None)
    token, tokens, steps = tokenizer.bos_token_id, list[int](), list[Step]()
    while len(tokens) < (MAX_REPLY_TOKENS if reply is None else len(reply)):
        embedding = table(torch.tensor([token]))
        reading, step = _read(decoder, embedding, states, len(tokens), memory, change)
        logits, ids = model.lm_head(reading.outputs).float(), encoded.source_ids
        if reading.gates is not None and ids is not None and not (change and change.off):
            step["gate"] = float(reading.gates.sigmoid())
            pointing = Pointing(reading.gates, step["weights"][None, None], ids)
            logits = mixed_log_probabilities(logits, pointing)
        states, log_p = reading.states[-1], logits[0, 0].log_softmax(-1)
        steps.append(step | {"state": reading.layers[-1][0, 0], "log_p": log_p})
        early = [tokenizer.eos_token_id] if len(tokens) < GenerationPreset.min_new_tokens else []
        mute = torch.tensor([*never, *early])
        likeliest = int(log_p.index_fill(0, mute, -torch.inf).argmax())
        token = likeliest if reply is None else reply[len(tokens)]
        tokens.append(token)
        if reply is None and token == tokenizer.eos_token_id:
            break
    return tokens, steps


def _read(
    decoder: parts.RnnSeq2SeqDecoder,
    embedding: Tensor,
    states: parts.States,
    place: int,
    memory: parts.Memory,
    change: Change | None,
) -> tuple[parts.DecoderReading, Step]:
    """Read one embedding, (1, E). Returns what that gave, and a step's share of the attention."""
    rnn = decoder.stack.weights()
    reading = decoder.read_step(embedding, states, place, memory, rnn)
    if memory is None or decoder.attention is None or reading.weights is None:
        return reading, {}
    query = states[-1][0] if decoder.config.attention == "additive" else reading.layers[-1]
    visible, bias = decoder.attention.window(query, memory, torch.tensor([place]))
    scores = decoder.attention.score(query, memory.keys).float() + (0 if bias is None else bias)
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)[0, 0]
    weights = reading.weights[0, 0]
    if change is not None and (change.off or change.step == place):
        weights = weights * 0 if change.off else change.weights(scores)
        # where every position holds the new context, the weighted sum is the new context
        memory = replace(memory, values=(weights @ memory.values[0]).expand_as(memory.values))
        reading = decoder.read_step(embedding, states, place, memory, rnn)
    context = weights @ memory.values[0]
    return reading, {"scores": scores, "weights": weights, "context": context}


@torch.inference_mode()
def lesson_numbers(subjects: Mapping[str, Subject], asked: Any) -> dict[str, Any]:
    """All that the page shows, of what it asked: `model`, a name; `text`; the `reply` it is forced
    along, None for its own; `change`, fields of `Change`, or None.

    Raises ValueError where that makes no sense, or is too long; the message says what is allowed.
    """
    if not isinstance(asked, Mapping) or str(asked.get("model")) not in subjects:
        raise ValueError(strings.LESSON_ASKED.format(", ".join(subjects)))
    subject = subjects[str(asked["model"])]
    model, written = subject.model, subject.target_tokenizer
    most = min(MAX_SOURCE_TOKENS, model.config.max_source_positions)
    source, reply = _tokens(subject.tokenizer, "user", asked.get("text"), most), None
    if asked.get("reply") is not None:
        reply = _tokens(written, "assistant", asked["reply"], MAX_REPLY_TOKENS)
    encoded = model.model.encoder(torch.tensor([source]), output_hidden_states=True)
    tokens, steps = decode(subject, encoded, reply)
    given = asked.get("change")
    change = None if given is None else _change(given, model, len(tokens), len(source))
    changed = decode(subject, encoded, tokens, change)[1] if change else steps
    pairs = [
        [_numbers(written, token, step, pair) for step in pair]
        for token, *pair in zip(tokens, steps, changed, strict=True)
    ]
    first = model.model.decoder.bridge(encoded.final_hidden, encoded.final_cell)
    return {
        "facts": {name: getattr(model.config, name) for name in FACTS + SIZES},
        "source": [{"word": subject.tokenizer.decode([token]), "id": token} for token in source],
        "reply": [{"word": written.decode([token]), "id": token} for token in tokens],
        "own": reply_text(written, decode(subject, encoded, None)[0]),
        "own_changed": reply_text(written, decode(subject, encoded, None, change)[0]),
        "embeddings": _plain(encoded.hidden_states[0][0]),
        "states": _plain(encoded.last_hidden_state[0]),
        "fixed": [[_plain(part[0, 0]) for part in state if part.numel()] for state in first],
        "steps": [before for before, _ in pairs],
        "changed": [after for _, after in pairs] if change else [],
    }


def lesson_function(subjects: Mapping[str, Subject]) -> Callable[[Any], dict[str, Any]]:
    """What the page calls for the numbers of a sentence."""

    def lesson(asked: Any) -> dict[str, Any]:
        try:
            return lesson_numbers(subjects, asked)
        except ValueError as error:
            return {"error": str(error)}

    return lesson


def _numbers(tokenizer: Tokenizer, token: int, step: Step, pair: Sequence[Step]) -> dict[str, Any]:
    """A step as the page shows it: of vectors the first values, None for a score out of sight, and
    the likeliest tokens before and after a change."""
    log_p = step["log_p"]
    likely = torch.cat([each["log_p"].topk(SHOWN_WORDS).indices for each in pair]).tolist()
    shown: dict[str, Any] = {"gate": step.get("gate", 1.0), "state": _plain(step["state"])}
    if "scores" in step:
        shown["scores"] = [
            None if score < -1e30 else score for score in _plain(step["scores"], None)
        ]
        shown |= {"weights": _plain(step["weights"], None), "context": _plain(step["context"])}
    ids = dict.fromkeys([*likely, token])
    shown["likeliest"] = [(tokenizer.decode([i]), float(log_p[i].exp()), i == token) for i in ids]
    return shown | {"rank": int((log_p > log_p[token]).sum()) + 1}


def _plain(values: Tensor, most: int | None = SHOWN_VALUES) -> Any:
    """Numbers that travel: of vectors (..., width) the first."""
    return values[..., :most].double().mul(1e6).round().div(1e6).tolist()


def _tokens(tokenizer: Tokenizer, role: str, text: Any, most: int) -> list[int]:
    if not isinstance(text, str):
        raise ValueError(strings.not_text(text))
    if len(text) > MAX_CHARACTERS:
        raise ValueError(strings.LESSON_CHARACTERS.format(len(text), MAX_CHARACTERS))
    if not (cleaned := clean_text(text)):
        raise ValueError(strings.LESSON_BLANK)
    tokens = encode_turn(tokenizer, role, cleaned)[1:]
    if role == "user":
        said = {"role": role, "content": cleaned}
        tokens = encode_context(tokenizer, [said], len(tokens) + 2)  # nothing is cut
    if len(tokens) > most:
        raise ValueError(strings.LESSON_LONG.format(len(tokens), most))
    return tokens


def _change(given: Any, model: Model, steps: int, positions: int) -> Change:
    if model.config.attention == "none":
        raise ValueError(strings.LESSON_NO_CHANGE)
    names = ("off", "step", "position", "weight") if isinstance(given, Mapping) else ()
    off, step, position, weight = [given.get(name) for name in names] or [None] * 4
    if off is True:
        return Change(off=True)
    known = type(step) is type(position) is int and type(weight) in (int, float)
    if known and 0 <= step < steps and 0 <= position < positions and 0 <= weight <= 1:
        return Change(False, step, position, weight)
    raise ValueError(strings.LESSON_CHANGE)
