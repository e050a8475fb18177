"""What happens when a person sends, retries, edits, continues or stops. Knows nothing of Gradio.

The whole conversation travels with each request and back: nothing here remembers anything.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from chatbot.app import strings
from chatbot.app.inspection import Look, inspect_reply, note
from chatbot.chat import FALLBACK, MAX_MESSAGE_CHARACTERS, ChatSession, Reply, clean_message
from chatbot.decoding import readable
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.presets import DEFAULT_GENERATION_PRESET, GenerationPreset, generation_preset
from chatbot.serving.engine import Engine, EngineFullError
from chatbot.serving.session import EngineSession

MAX_HISTORY_MESSAGES = 200  # of those that travel, the newest; the encoder reads far fewer
MORE_TOKENS = 4  # that a reply goes on with, at the least

Message = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bot:
    """The engine of a model, and when it does not answer, shared by all."""

    engine: Engine
    min_confidence: float = 0.0
    fallback: str = FALLBACK
    safety: bool = True

    def __post_init__(self) -> None:
        # what is not possible is refused here, rather than at each message
        self.session(Choice(generation_preset(DEFAULT_GENERATION_PRESET)), [])

    @property
    def model(self) -> RnnSeq2SeqForConditionalGeneration:
        return self.engine.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self.engine.tokenizer

    def session(self, choice: "Choice", messages: Sequence[Message]) -> ChatSession:
        """A conversation of this request alone."""
        newest = messages[-MAX_HISTORY_MESSAGES:]
        cleaned = [{**message, "content": clean_message(message["content"])} for message in newest]
        return EngineSession(
            self.engine,
            choice.preset,
            messages=cleaned,
            seed=choice.seed,
            min_confidence=self.min_confidence,
            fallback=self.fallback,
            safety=self.safety,
        )


@dataclass(frozen=True)
class Choice:
    """How a reply is chosen: a preset, and the seed of its draws. None: a new one each time."""

    preset: GenerationPreset
    seed: int | None = None


@dataclass(frozen=True)
class View:
    """What the page shows next. None leaves a part as it is.

    Args:
        history: The conversation.
        status: The quiet line below it.
        inspection: The look inside the last reply.
        box: What stands in the text box.
        running: A reply is on its way.
    """

    history: list[Message] | None = None
    status: str = ""
    inspection: Look | None = None
    box: str | None = None
    running: bool = False


def read_history(history: object) -> list[Message]:
    """Messages from the page or from a program, whose content is text or a list of parts.

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
        messages.append({"role": message["role"], "content": _text_of(message.get("content"))})
    return messages


def choose_preset(
    name: str,
    temperature: float | None = None,
    top_p: float | None = None,
    max_new_tokens: int | None = None,
    num_beams: int | None = None,
    seed: int | None = None,
) -> Choice:
    """A preset by its name, or, as "my own", what the sliders and the seed say. With beams nothing
    is drawn.

    Raises:
        ValueError: An unknown preset, or a value out of range.
    """
    if name != strings.MY_OWN:
        return Choice(generation_preset(name))
    own: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": num_beams}
    if num_beams is None or num_beams == 1:
        own |= {"temperature": temperature, "top_p": top_p}
    preset = replace(generation_preset(DEFAULT_GENERATION_PRESET), temperature=0.0, top_p=1.0)
    preset = replace(preset, **{field: value for field, value in own.items() if value is not None})
    if seed is not None and not 0 <= seed < 2**63:
        raise ValueError(strings.BAD_SEED.format(seed))
    return Choice(preset, None if seed is None else int(seed))


def send(bot: Bot, text: str, history: object, choice: Choice) -> Generator[View, None, None]:
    """Answer a message, word by word where the preset can."""
    if not clean_message(text):
        yield View(status=strings.BLANK)
        return
    text = without_surrogates(text)
    status = ""
    if len(text) > MAX_MESSAGE_CHARACTERS:
        text = text[-MAX_MESSAGE_CHARACTERS:]
        status = strings.cut(MAX_MESSAGE_CHARACTERS)
    views = _answer(bot, read_history(history), text, choice, status)
    yield replace(next(views), box="")
    yield from views


def edit(bot: Bot, index: object, text: str, history: object, choice: Choice) -> Iterator[View]:
    """Cut the conversation at a message of the user, put `text` in its place and answer that."""
    messages = read_history(history)
    if not isinstance(index, int) or not 0 <= index < len(messages):
        yield View(status=strings.NOTHING_TO_EDIT)
        return
    with closing(send(bot, text, messages[:index], choice)) as views:
        for view in views:
            yield replace(view, box=None)


def retry(bot: Bot, history: object, choice: Choice) -> Iterator[View]:
    """Drop the last reply and answer again."""
    earlier, text = _last_exchange(read_history(history))
    if text is None:
        yield View(status=strings.NOTHING_TO_RETRY)
        return
    yield from _answer(bot, earlier, text, choice, "")


def go_on(bot: Bot, history: object, choice: Choice) -> Iterator[View]:
    """Let the last reply go on where it ended, or was stopped."""
    messages = read_history(history)
    earlier, text = _last_exchange(messages)
    if text is None:
        yield View(status=strings.NOTHING_TO_CONTINUE)
        return
    begin = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
    if len(begin) > MAX_MESSAGE_CHARACTERS:
        yield View(status=strings.FULL)
        return
    more = replace(choice.preset, min_new_tokens=min(MORE_TOKENS, choice.preset.max_new_tokens))
    yield from _answer(bot, earlier, text, replace(choice, preset=more), "", begin)


def branch(bot: Bot, index: object, begin: str, history: object, choice: Choice) -> Iterator[View]:
    """Cut the conversation at a reply, and give another in its place that begins with a text."""
    messages = read_history(history)
    if not isinstance(index, int) or not 0 < index < len(messages) or not begin:
        yield View(status=strings.NOTHING_TO_CONTINUE)
        return
    earlier, text = _last_exchange(messages[:index])
    if text is None or messages[index]["role"] == "user":
        yield View(status=strings.NOTHING_TO_CONTINUE)
        return
    begin = readable(bot.tokenizer, without_surrogates(begin[:MAX_MESSAGE_CHARACTERS]))
    yield from _answer(bot, earlier, text, choice, "", begin)


def stop(history: object) -> View:
    """After the reply was ended: what was said stays; with nothing said, the message comes back."""
    messages = read_history(history)
    if messages and messages[-1]["role"] == "user":
        earlier, text = _last_exchange(messages)
        return View(earlier, strings.STOPPED, box=text)
    return View(messages, strings.STOPPED)


def answer(bot: Bot, message: object, history: object, preset: str | None) -> Iterator[str]:
    """The reply to a program, as it grows; history and preset may be None.

    Raises:
        ValueError: What was sent makes no sense; the message says what is allowed.
    """
    if not isinstance(message, str):
        raise ValueError(strings.not_text(message))
    chosen = generation_preset(DEFAULT_GENERATION_PRESET if preset is None else preset)
    session = bot.session(Choice(chosen), read_history(history))
    with closing(_replies(session, without_surrogates(message))) as replies:
        for text, _ in replies:
            yield text


def _answer(
    bot: Bot, earlier: list[Message], text: str, choice: Choice, status: str, begin: str = ""
) -> Generator[View, None, None]:
    asked = [*earlier, {"role": "user", "content": text}]
    first = _with_reply(asked, begin) if begin else asked
    yield View(first, status or strings.THINKING, running=True)
    said, reply = begin, None
    try:
        with closing(_replies(bot.session(choice, earlier), text, begin)) as replies:
            for said, reply in replies:
                if reply is None and len(said) > len(begin):  # a last word may come back late
                    yield View(_with_reply(asked, said), status, running=True)
    except EngineFullError:
        yield View(first, strings.BUSY)
        return
    except Exception:  # the page shows a sentence, the log what happened
        logger.exception("no reply")
        yield View(_with_reply(asked, said) if said else asked, strings.FAILED)
        return
    assert reply is not None
    status = " · ".join(filter(None, [status, note(reply)]))
    ranked = choice.preset.num_candidates > 1
    look = inspect_reply(reply, asked, bot.tokenizer, bot.model.config, ranked=ranked)
    yield View(_with_reply(asked, said), status, look)


def _replies(
    session: ChatSession, text: str, begin: str = ""
) -> Generator[tuple[str, Reply | None], None, None]:
    """The text so far, and the reply itself with the last one. Closing it ends the model."""
    if not session.preset.can_stream:
        whole = session.reply(text, begin=begin)
        yield whole.text, whole
        return
    stream: Generator[str, None, Reply] = session.stream(text, begin=begin)
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
    return [*asked, {"role": "assistant", "content": reply}]


def _text_of(content: object) -> str:
    """The text of a message's content; files and components hold none."""
    if isinstance(content, str):
        return without_surrogates(content)
    if isinstance(content, Sequence):
        parts = [p.get("text") for p in content if isinstance(p, Mapping)]
        return without_surrogates("".join(part for part in parts if isinstance(part, str)))
    raise ValueError(strings.unknown_history(content))


def without_surrogates(text: str) -> str:
    """Half a character cannot be sent back as JSON."""
    return text.encode("utf-8", "replace").decode("utf-8")
