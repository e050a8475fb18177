"""The steps of cleaning that look at one dialogue: what changes its texts, what mutes a reply.

Each is a plain function with a switch of the same name in `chatbot.data.cleaning.Cleaning`.
"""

import html as html_entities
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise

# What stands in the place of what could lead to a person; a bot may say each of them.
LINK, EMAIL, PHONE = "this link", "this email address", "this phone number"

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Up to the next that opens: many that never close must not each be searched to the end of the text.
_UNSEEN = re.compile(
    r"<!--(?:(?!<!--).)*?-->|<(script|style)\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
_BLOCKS = "br|p|div|li|ul|ol|tr|td|th|table|tbody|thead|hr|h[1-6]|blockquote|pre|html|head|body"
_INLINE = "a|b|i|u|s|em|strong|span|font|img|code|small|big|sub|sup|del|ins|strike|center|mark|tt"
_ATTRIBUTES = r"(?:\s+[\w-]+\s*=[^<>]*)?\s*/?"
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCKS}){_ATTRIBUTES}>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE}){_ATTRIBUTES}>", re.IGNORECASE)

_URL = re.compile(
    r"(?:\b(?:https?|ftp)://|\bwww\.)[^\s<>\"]*[^\s<>\"'.,;:!?)\]}]"
    r"|(?<![\w@.-])(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|io|co|de|fr|it|uk)/[^\s<>\"]*[\w/]",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w.,/:$€£+-])(?:"
    r"\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}"  # international: +44 20 7946 0958
    r"|(?:1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}"  # (555) 010-9999
    r"|\d{3}-(?!(?:19|20)\d\d(?!\d))\d{4}"  # no years
    r"|0\d{1,4}[ /-]\d{3,4}(?:[ -]?\d{2,5})+"  # national, with the zero: 020 7946 0958
    r"|0\d{9,10}|[2-9]\d{2}[2-9]\d{6}"
    r")(?![\w-]|[.,/:]\d)"
)

_DIGITS = re.compile(r"\d(?:\D{0,3}\d){6}")

# Only tokenizers leave a space before a comma or a full stop, and parts of words alone.
_TOKENIZED = re.compile(r"[\w)\]\"'’] (?:,|\.|n['’]t|['’](?:s|m|re|ve|ll|d))(?=\s|$)")
_UNSPLIT = [
    (re.compile(r"(?<=\w) ?(['’]) (?=(?:s|m|t|re|ve|ll|d)(?:\s|$))"), r"\1"),  # don ' t
    (re.compile(r"(?<=\w) (?=n['’]t\b|['’](?:s|m|re|ve|ll|d)\b)", re.IGNORECASE), ""),
    (re.compile(r"\b(gon|wan) (na)\b|\b(got) (ta)\b", re.IGNORECASE), r"\1\2\3\4"),
    (re.compile(r"``|''"), '"'),
    (re.compile(r'(?<!\S)" ([^"]*?) "(?!\w)'), r'"\1"'),
    (re.compile(r"(?<=\S) (?=(?!\.\.)[,.!?]+(?:[\s\"')\]]|$)|[;:](?:\s|$)|[)\]](?:\W|$))"), ""),
    (re.compile(r"(?<=[(\[]) "), ""),
]

_ROLE = r"(?:user|speaker|person|participant|bot|agent|persona)"
_NAMED = (
    rf"{_ROLE} ?(?:\d+|[AB])(?:['’]?s)?(?: \w+){{0,2}}|(?:\w+(?:['’]s)? )?(?:user)?name(?: here)?"
)
_PLACES = r"(?:\w+ )?(?:city|town|country|state|location|address|age|date|number|email|link|url)"
_PLACEHOLDER = re.compile(
    rf"\[(?i:{_NAMED}|{_PLACES}|{_ROLE}|insert [^\]]*|redacted|hometown|university|team|company)\]"
    rf"|[(<](?i:{_NAMED}|redacted)[)>]|\[[A-Z]{{2,}}(?:[_ ][A-Z\d]+)*\]|<[A-Z]{{3,}}(?:_[A-Z\d]+)*>"
    r"|\{\{\w+\}\}|\b(?:REDACTED|XXXX+)(?!\w)"
)
_MARKS = re.compile(r"[\[<({]|REDACTED|XXXX")  # without one there is no placeholder
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def html(texts: Sequence[str]) -> list[str]:
    """Entities become characters; tags of HTML go, a space where a block ends; `<3` stays."""

    def plain(text: str) -> str:
        text = _ENTITY.sub(lambda match: html_entities.unescape(match[0]), text)
        return _INLINE_TAG.sub("", _BLOCK_TAG.sub(" ", _UNSEEN.sub(" ", text)))

    return [plain(text) if "<" in text or "&" in text else text for text in texts]


def urls(texts: Sequence[str]) -> list[str]:
    """Addresses of the web become "this link"."""
    return [_URL.sub(LINK, text) if "." in text else text for text in texts]


def emails(texts: Sequence[str]) -> list[str]:
    """E-mail addresses become "this email address"."""
    return [_EMAIL.sub(EMAIL, text) if "@" in text else text for text in texts]


def phones(texts: Sequence[str]) -> list[str]:
    """Phone numbers become "this phone number"."""
    return [_PHONE.sub(PHONE, text) if _DIGITS.search(text) else text for text in texts]


def detokenize(texts: Sequence[str]) -> list[str]:
    """What a tokenizer took apart is joined: "do n't , sir" becomes "don't, sir".

    A dialogue without a sign of it stays as it is, French with its spaces before "?" and "!" too.
    """
    if not any(_TOKENIZED.search(text) for text in texts):
        return list(texts)
    restored = []
    for text in texts:
        for pattern, replacement in _UNSPLIT:
            text = pattern.sub(replacement, text)
        restored.append(text)
    return restored


TEXT_STEPS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    step.__name__: step for step in (urls, emails, phones, detokenize)
}


def has_placeholder(text: str) -> bool:
    """Whether a name was taken out of the text: "[user 1]", "(name)", "<REDACTED_TERM>"."""
    return bool(_MARKS.search(text) and _PLACEHOLDER.search(text))


def has_profanity(text: str) -> bool:
    """Whether a word of the text, or two in a row, stand in the list of better-profanity.

    Only its list is used: its own search takes a third of a second for each text.
    """
    words = [word.lower() for word in _WORD.findall(text)]
    pairs = map(" ".join, pairwise(words))
    return not _profanities().isdisjoint((*words, *pairs))


@cache
def _profanities() -> frozenset[str]:
    listed = files("better_profanity") / "profanity_wordlist.txt"
    return frozenset(listed.read_text("utf-8").lower().split("\n")) - {""}


def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language that py3langid takes a text to be in; None below 20 letters,
    where it guesses."""
    from py3langid import classify

    return classify(text)[0] if sum(map(str.isalpha, text)) >= 20 else None
