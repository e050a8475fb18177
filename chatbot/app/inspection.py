"""A look inside a reply, as data that inspection.js and transcript.js draw.

A place is [from, to) in the characters of a text as the page shows it. What cannot be placed has
none: nothing is lit that was not read.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from chatbot.app import strings
from chatbot.chat import Reply, clean_message
from chatbot.data import clean_text
from chatbot.modeling import RnnSeq2SeqConfig
from chatbot.safety import check_reply
from chatbot.tokenization import END, SPEAKERS

DIGITS = 6  # of the numbers that travel
HALF_A_LETTER = "\N{REPLACEMENT CHARACTER}"

Look = dict[str, Any]
Place = tuple[int, int]


def inspect_reply(
    reply: Reply,
    asked: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerFast,
    config: RnnSeq2SeqConfig,
    *,
    ranked: bool = False,
) -> Look:
    """All there is to see of a reply.

    Args:
        asked: The conversation that it answers, as the page shows it.
        ranked: Whether its candidates were ranked by another score than log p.

    Returns:
        Data for JSON. `index` is the reply's place among the messages, and each of `source` and
        `words` a token: the first with the message and place where it stands, the second with that
        in the reply. A fixed reply has a `hint` instead.
    """
    several = zip(reply.candidates, _rounded(reply.scores), strict=True)
    look: Look = {
        "index": len(asked),
        "text": reply.text,
        "candidates": list(several) if len(reply.candidates) > 1 else [],
        "score": strings.RANK if ranked else strings.SCORE,
    }
    seen = reply.explanation
    if seen is None:
        return look | {"hint": strings.FIXED}
    look |= _source(reply, asked, tokenizer) | _words(reply, tokenizer)
    look["probabilities"] = _rounded(seen.log_probabilities.exp())
    look |= {"weights": None, "entropy": None, "centres": None, "window": config.attention_window}
    if seen.attention is not None:
        look |= {"weights": _rounded(seen.attention), "entropy": _rounded(seen.entropy)}
        look["shares"] = _shares(seen.attention, reply.source_ids, tokenizer.eos_token_id)
    if seen.centres is not None:
        look |= {"centres": _rounded(seen.centres), "reach": config.attention_window_size}
    return look


def note(reply: Reply) -> str:
    """How long the reply took; nothing where no model ran."""
    timing = reply.timing
    return strings.timing(timing.tokens, timing.first_token, timing.total) if timing.tokens else ""


def _source(
    reply: Reply, asked: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerFast
) -> Look:
    """The tokens that were read, where they stand, and what was not read."""
    ids = reply.source_ids
    first = len(asked) - ids.count(tokenizer.eos_token_id)
    places: list[tuple[int, int, int] | None] = []
    for index, message in enumerate(asked[first:], first):
        found = [place and (index, *place) for place in _places(message, tokenizer)]
        places += [None, *found, None]  # its speaker and <end>
    known = len(places)
    places = [None, *places[len(places) - (len(ids) - 2) :], None]  # <bot> comes last
    source = []
    for token, place in zip(reply.source_tokens, places, strict=True):
        if place and HALF_A_LETTER in token:  # a byte is called by its letter
            token = clean_text(asked[place[0]]["content"][place[1] : place[2]])
        source.append((token, place))
    return {"source": source, "first": first, "partly": known >= len(ids)}


def _places(
    message: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast
) -> Iterator[Place | None]:
    """Where each token of a message stands in it."""
    cleaned = {**message, "content": clean_message(message["content"])}
    turn = str(tokenizer.apply_chat_template([cleaned], tokenize=False))
    read = turn[len(SPEAKERS[message["role"]]) : -len(END)]  # special tokens are broken up in it
    letters = [index for index, letter in enumerate(read) if not letter.isspace()]
    spelled, stands = _letters(message["content"])
    same = spelled == "".join(read.split())
    where = dict(zip(letters, stands, strict=True)) if same else {}
    offsets = tokenizer(read, add_special_tokens=False, return_offsets_mapping=True)
    for start, end in offsets["offset_mapping"]:
        found = [where[index] for index in range(start, end) if index in where]
        yield (found[0][0], found[-1][1]) if found else None


def _letters(text: str) -> tuple[str, list[Place]]:
    """What cleaning leaves of a text but spaces, and where each of these letters stands in it."""
    spelled, places, start = "", [], 0
    for end in range(1, len(text) + 1):
        if end < len(text) and unicodedata.combining(text[end]):
            continue  # cleaning joins a letter and its accents
        letter = clean_text(text[start:end])
        spelled += letter
        places += [(start, end)] * len(letter)
        start = end
    return spelled, places


def _words(reply: Reply, tokenizer: PreTrainedTokenizerFast) -> Look:
    """Tokens that were said, where they stand and begin in the text; in the place of each the
    likeliest: [token, probability, text that it adds]; without a text it cannot be said."""
    decode = partial(tokenizer.decode, skip_special_tokens=True)
    ids = reply.token_ids
    texts = [decode(ids[:count]).rstrip(HALF_A_LETTER) for count in range(len(ids) + 1)]
    blank = len(texts[-1]) - len(texts[-1].lstrip())
    placed = texts[-1].strip().lower() == reply.text.lower().rstrip(f" {HALF_A_LETTER}")
    words, rivals = [], []
    for index, (before, after) in enumerate(pairwise(texts)):
        start = len(after) - len(after[len(before) :].lstrip()) - blank
        end = len(after.rstrip()) - blank
        spot = (start, end) if placed and start < end else None
        words.append((reply.tokens[index], spot, max(len(before) - blank, 0)))
        others: list[tuple[str, float, str | None]] = []
        for token, p in _likeliest(reply, index):
            added = decode([*ids[:index], token])[len(before) :]
            if check_reply((before + added).rpartition(" ")[2]) is None:  # no slur is offered
                sayable = placed and added.strip() and HALF_A_LETTER not in added
                others.append((tokenizer.decode([token]), p, added if sayable else None))
        rivals.append(others)
    return {"words": words, "alternatives": rivals, "instead": not placed}


def _likeliest(reply: Reply, index: int) -> Iterator[tuple[int, float]]:
    """Tokens and their probabilities in the place of one of a reply's."""
    assert reply.explanation is not None
    tokens = reply.explanation.alternatives[index].tolist()
    return zip(tokens, _rounded(reply.explanation.alternative_probabilities[index]), strict=True)


def _shares(attention: Tensor, source: Sequence[int], end: int) -> list[float]:
    """Mean weight on each turn that was read; what is missing to 1 is on the final `<bot>`."""
    borders = [0, *(index + 1 for index, token in enumerate(source) if token == end)]
    mean = attention.mean(0)
    return [round(float(mean[start:stop].sum()), DIGITS) for start, stop in pairwise(borders)]


def _rounded(numbers: Any) -> Any:
    """Tensors and lists as lists of numbers that are short to write."""
    if isinstance(numbers, Tensor):
        numbers = numbers.tolist()
    return [_rounded(n) if isinstance(n, list) else round(n, DIGITS) for n in numbers]
