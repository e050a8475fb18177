"""A look inside a reply: its attention as a heat map, its rivals with their scores, its timing."""

from html import escape

from chatbot.app import strings
from chatbot.chat import Reply

SHOWN_FROM = 0.005  # a smaller weight leaves its cell blank, which keeps the page light


def inspect_reply(reply: Reply) -> str:
    """HTML of all there is to see; a sentence where there is nothing."""
    parts = [_heat_map(reply)]
    if len(reply.candidates) > 1:
        parts.append(_candidates(reply))
    return "".join(parts)


def hint(text: str) -> str:
    """A sentence in place of a picture."""
    return f'<p class="hint">{escape(text)}</p>'


def note(reply: Reply) -> str:
    """How long the reply took; nothing where no model ran."""
    timing = reply.timing
    if not timing.tokens:
        return ""
    return strings.timing(timing.tokens, timing.first_token, timing.total)


def _heat_map(reply: Reply) -> str:
    """A row for each token of the reply, a column for each of the source, as in Bahdanau 2015."""
    if reply.attention is None:
        return hint(strings.ATTENTION_NONE)
    source = [_label(token) for token in reply.source_tokens]
    head = "".join(f'<th scope="col"><span>{escape(token)}</span></th>' for token in source)
    rows = "".join(
        _row(_label(token), source, weights)
        for token, weights in zip(reply.tokens, reply.attention.tolist(), strict=True)
    )
    return (
        f"{hint(strings.ATTENTION_CAPTION)}"
        f'<div class="heat" tabindex="0" role="region" aria-label="{escape(strings.ATTENTION)}">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(token: str, source: list[str], weights: list[float]) -> str:
    cells = "".join(_cell(token, read, w) for read, w in zip(source, weights, strict=True))
    return f'<tr><th scope="row">{escape(token)}</th>{cells}</tr>'


def _cell(token: str, read: str, weight: float) -> str:
    if weight < SHOWN_FROM:
        return "<td></td>"
    title = escape(strings.weight(read, token, weight))
    return f'<td title="{title}" style="--weight:{weight:.3f}"><span>{weight:.2f}</span></td>'


def _candidates(reply: Reply) -> str:
    rows = "".join(
        f"<tr><td>{escape(text)}</td><td>{score:.2f}</td></tr>"
        for text, score in zip(reply.candidates, reply.scores, strict=True)
    )
    return (
        f'<table class="candidates"><caption>{escape(strings.CANDIDATES)}</caption>'
        f'<thead><tr><th scope="col">{escape(strings.CANDIDATE)}</th>'
        f'<th scope="col">{escape(strings.SCORE)}</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _label(token: str) -> str:
    """A token that can be seen."""
    return token.strip() or "␣"
