"""What happens when a person sends, retries, undoes, clears or stops. Knows nothing of Gradio.

The whole conversation travels with each request and back: nothing here remembers anything. On the
page text is shown as HTML, so it is escaped on the way there and read back on the way in; the model
sees what was typed.
"""

import logging
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from chatbot.app import strings
from chatbot.app.inspection import hint, inspect_reply, note
from chatbot.chat import FALLBACK, MAX_MESSAGE_CHARACTERS, ChatSession, Reply, clean_message
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.presets import DEFAULT_GENERATION_PRESET, GenerationPreset, generation_preset

MAX_HISTORY_MESSAGES = 200  # of those that travel, the newest; the encoder reads far fewer

Message = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bot:
    """The model and its tokenizer, and when they do not answer, shared by all."""

    model: RnnSeq2SeqForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    min_confidence: float = 0.0
    fallback: str = FALLBACK

    def __post_init__(self) -> None:
        # what is not possible is refused here, rather than at each message
        self.session(generation_preset(DEFAULT_GENERATION_PRESET), [])

    def session(self, preset: GenerationPreset, messages: Sequence[Message]) -> ChatSession:
        """A conversation of this request alone."""
        newest = messages[-MAX_HISTORY_MESSAGES:]
        cleaned = [{**message, "content": clean_message(message["content"])} for message in newest]
        return ChatSession(
            self.model,
            self.tokenizer,
            preset,
            messages=cleaned,
            min_confidence=self.min_confidence,
            fallback=self.fallback,
        )


@dataclass(frozen=True)
class View:
    """What the page shows next. None leaves a part as it is.

    Args:
        history: The conversation, escaped.
        status: The quiet line below it.
        inspection: HTML of the look inside the last reply.
        box: What stands in the text box.
        running: A reply is on its way.
    """

    history: list[Message] | None = None
    status: str = ""
    inspection: str | None = None
    box: str | None = None
    running: bool = False


def escape(text: str) -> str:
    """Text as HTML that shows it. Leaves all that HTML would not take for markup."""
    return re.sub(r"&(?=[#a-zA-Z])", "&amp;", text).replace("<", "&lt;")


def unescape(text: str) -> str:
    """Takes `escape` back, exactly."""
    return re.sub("&lt;|&amp;", lambda match: "<" if match[0] == "&lt;" else "&", text)


def read_history(history: object, *, escaped: bool) -> list[Message]:
    """Messages from the page (escaped, content as parts) or from a program (content as text).

    Raises:
        ValueError: It is no list of messages by the user and the assistant.
    """
    if history is None:
        return []
    if not isinstance(history, Sequence) or isinstance(history, str):
        raise ValueError(strings.unknown_history(history))
    messages = []
    for message in history:
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
            raise ValueError(strings.unknown_history(message))
        text = _text_of(message.get("content"))
        messages.append({"role": message["role"], "content": unescape(text) if escaped else text})
    return messages


def show_history(messages: Sequence[Message]) -> list[Message]:
    """Messages as the page takes them. As parts, because Gradio dedents a plain string."""
    return [
        {
            "role": message["role"],
            "content": [{"type": "text", "text": escape(message["content"])}],
        }
        for message in messages
    ]


def choose_preset(
    name: str,
    temperature: float | None = None,
    top_p: float | None = None,
    max_new_tokens: int | None = None,
    num_beams: int | None = None,
) -> GenerationPreset:
    """A preset with what the sliders say, of those that mean something for it.

    Raises:
        ValueError: An unknown preset, or a value out of range.
    """
    preset = generation_preset(name)
    chosen: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if preset.can_stream:
        chosen |= {"temperature": temperature, "top_p": top_p}
    else:
        chosen |= {"num_beams": num_beams}
    return replace(preset, **{field: value for field, value in chosen.items() if value is not None})


def send(bot: Bot, text: str, history: object, preset: GenerationPreset) -> Iterator[View]:
    """Answer a message, word by word where the preset can."""
    if not clean_message(text):
        yield View(status=strings.BLANK)
        return
    text = _without_surrogates(text)
    status = ""
    if len(text) > MAX_MESSAGE_CHARACTERS:
        text = text[-MAX_MESSAGE_CHARACTERS:]
        status = strings.cut(MAX_MESSAGE_CHARACTERS)
    yield from _answer(bot, read_history(history, escaped=True), text, preset, status)


def retry(bot: Bot, history: object, preset: GenerationPreset) -> Iterator[View]:
    """Drop the last reply and answer again."""
    earlier, text = _last_exchange(read_history(history, escaped=True))
    if text is None:
        yield View(status=strings.NOTHING_TO_RETRY)
        return
    with closing(_answer(bot, earlier, text, preset, "")) as views:
        for view in views:
            yield replace(view, box=None)


def undo(history: object) -> View:
    """Take back the last message and its reply; the message goes into the box."""
    earlier, text = _last_exchange(read_history(history, escaped=True))
    if text is None:
        return View(status=strings.NOTHING_TO_UNDO)
    return View(show_history(earlier), inspection=hint(strings.ATTENTION_EMPTY), box=text)


def clear() -> View:
    """Forget the conversation. It was nowhere but on the page."""
    return View([], inspection=hint(strings.ATTENTION_EMPTY), box="")


def stop(history: object) -> View:
    """After the reply was ended: what was said stays; with nothing said, the message comes back."""
    messages = read_history(history, escaped=True)
    if messages and messages[-1]["role"] == "user":
        return replace(undo(history), status=strings.STOPPED)
    return View(status=strings.STOPPED, inspection=hint(strings.ATTENTION_STOPPED))


def answer(bot: Bot, message: object, history: object, preset: str | None) -> Iterator[str]:
    """The reply to a program, as it grows; history and preset may be None.

    Raises:
        ValueError: What was sent makes no sense; the message says what is allowed.
    """
    if not isinstance(message, str):
        raise ValueError(strings.not_text(message))
    chosen = choose_preset(DEFAULT_GENERATION_PRESET if preset is None else preset)
    session = bot.session(chosen, read_history(history, escaped=False))
    with closing(_replies(session, _without_surrogates(message))) as replies:
        for text, _ in replies:
            yield text


def _answer(
    bot: Bot, earlier: list[Message], text: str, preset: GenerationPreset, status: str
) -> Generator[View, None, None]:
    asked = [*earlier, {"role": "user", "content": text}]
    yield View(show_history(asked), status or strings.THINKING, box="", running=True)
    said, reply = "", None
    try:
        with closing(_replies(bot.session(preset, earlier), text)) as replies:
            for said, reply in replies:
                if reply is None:
                    yield View(_with_reply(asked, said), status, running=True)
    except Exception:  # the page shows a sentence, the log what happened
        logger.exception("no reply")
        history = _with_reply(asked, said) if said else show_history(asked)
        yield View(history, strings.FAILED)
        return
    assert reply is not None
    status = " · ".join(filter(None, [status, note(reply)]))
    yield View(_with_reply(asked, said), status, inspect_reply(reply))


def _replies(session: ChatSession, text: str) -> Generator[tuple[str, Reply | None], None, None]:
    """The text so far, and the reply itself with the last one. Closing it ends the model."""
    if not session.preset.can_stream:
        whole = session.reply(text)
        yield whole.text, whole
        return
    stream: Generator[str, None, Reply] = session.stream(text)
    with closing(stream):
        while True:
            try:
                said = next(stream)
            except StopIteration as end:
                yield end.value.text, end.value
                return
            yield said, None


def _last_exchange(messages: list[Message]) -> tuple[list[Message], str | None]:
    """What came before the user's last message, and its text; None where there is none."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] == "user":
            return messages[:index], messages[index]["content"]
    return messages, None


def _with_reply(asked: list[Message], reply: str) -> list[Message]:
    return show_history([*asked, {"role": "assistant", "content": reply}])


def _text_of(content: object) -> str:
    """The text of a message's content; files and components hold none."""
    if isinstance(content, str):
        return _without_surrogates(content)
    if isinstance(content, Sequence):
        parts = [p.get("text") for p in content if isinstance(p, Mapping)]
        return _without_surrogates("".join(part for part in parts if isinstance(part, str)))
    raise ValueError(strings.unknown_history(content))


def _without_surrogates(text: str) -> str:
    """Half a character cannot be sent back as JSON."""
    return text.encode("utf-8", "replace").decode("utf-8")
