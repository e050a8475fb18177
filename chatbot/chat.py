"""A conversation with a model: history, replies, streaming.

A session holds the words of one conversation and its own random generator, and nothing else: any
number of sessions share one model, in any number of threads.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from chatbot.checkpoints import load_chatbot
from chatbot.data import clean_text
from chatbot.decoding import confidence, generate, readable, reply_text, spoken_tokens
from chatbot.explain import Explanation, explain_reply
from chatbot.folders import write_atomically
from chatbot.incremental import ConversationReader
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.modeling.modeling_rnn_seq2seq import RnnSeq2SeqEncoderOutput
from chatbot.presets import DEFAULT_GENERATION_PRESET, GenerationPreset, generation_preset
from chatbot.safety import check_message, check_reply
from chatbot.tokenization import encode_reply, encode_turns, is_chat

MAX_MESSAGE_CHARACTERS = 10_000
NOTHING_SAID = "I did not catch anything. What would you like to talk about?"
NOTHING_TO_SAY = "I have no words for that yet. Could you put it another way?"
FALLBACK = "I don't know that one yet."
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Timing:
    """Seconds to the first token and to the last, and how many tokens there were."""

    first_token: float
    total: float
    tokens: int


@dataclass(frozen=True)
class Reply:
    """What the model answered, and what can be seen of why.

    Args:
        text: The reply as a person reads it: the first candidate, or a fixed sentence where that
            has no word or too little confidence.
        tokens: Its tokens as text, `<end>` included where it came; none where `text` is fixed and
            no model made it, or what the model made is withheld.
        candidates: All replies that were compared, best first.
        scores: log p of each candidate under the model, or what drawn ones are ranked by.
        confidence: Geometric mean of the model's probabilities of `tokens`, 0 to 1.
        source_tokens: What the encoder read, as text.
        timing: How long it took.
        token_ids, source_ids: The same tokens as ids.
        explanation: How the model saw `tokens`; None where there are none.
    """

    text: str
    tokens: list[str]
    candidates: list[str]
    scores: list[float]
    confidence: float
    source_tokens: list[str]
    timing: Timing
    token_ids: list[int] = field(default_factory=list)
    source_ids: list[int] = field(default_factory=list)
    explanation: Explanation | None = None

    @property
    def attention(self) -> Tensor | None:
        """Weights, (tokens, source_tokens); None without attention."""
        return None if self.explanation is None else self.explanation.attention


class ChatSession:
    """One conversation.

    >>> session = ChatSession.from_pretrained()  # the shipped model
    >>> session.reply("hello!").text  # doctest: +SKIP
    'Hello!'

    Args:
        model: Shared freely: no state lives on it.
        tokenizer: The model's own.
        preset: A name of `hub_config/generation_presets.yaml`, or a preset of one's own.
        max_source_tokens: Tokens of history that the encoder reads. None: as in training.
        messages: What was said before.
        seed: Of the draws. None: a new one each time.
        min_confidence: A reply of less confidence gives way to `fallback`. 0: none does.
        fallback: What is said, and kept in the history, in its place.
        carry: What follows where the conversation outgrows `max_source_tokens`. True: what the
            encoder knows goes on, and attention sees the newest tokens. False: whole turns are cut,
            and the rest is read again; of our models this one had the lower perplexity.
        safety: Whether messages are checked for self-harm and replies for slurs (docs/safety.md).

    Raises:
        ValueError: An unknown preset, a model of parallel text, or a `min_confidence` outside 0 to
            1.
    """

    def __init__(
        self,
        model: RnnSeq2SeqForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        preset: GenerationPreset | str = DEFAULT_GENERATION_PRESET,
        *,
        max_source_tokens: int | None = None,
        messages: Sequence[Mapping[str, Any]] = (),
        seed: int | None = None,
        min_confidence: float = 0.0,
        fallback: str = FALLBACK,
        carry: bool = False,
        safety: bool = True,
    ):
        if not 0 <= min_confidence <= 1:
            raise ValueError(f"min_confidence={min_confidence!r} is not possible; allowed: 0 to 1.")
        if not is_chat(tokenizer):
            raise ValueError("a model of parallel text does not chat; allowed: `chatbot chat`")
        self.model = model
        self.tokenizer = tokenizer
        self.preset = generation_preset(preset) if isinstance(preset, str) else preset
        self.max_source_tokens = max_source_tokens or model.config.max_source_positions
        self.messages = [dict(message) for message in messages]
        self.min_confidence = min_confidence
        self.fallback = fallback
        self.safety = safety
        self._reader = ConversationReader(model, tokenizer, self.max_source_tokens, carry)
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> ChatSession:
        """A session with the model in a folder, or of the Hub; None: with the shipped one.

        Args:
            folder, revision, token: As of `load_chatbot`.
            options: As of the session.
        """
        return cls(*load_chatbot(folder, revision=revision, token=token), **options)

    def save(self, file: Path | str) -> None:
        """Write the messages and the state of the draws, a few kilobytes of JSON, whole or not."""
        state = base64.b64encode(bytes(self.generator.get_state().tolist())).decode()
        write_atomically(Path(file), json.dumps({"messages": self.messages, "draws": state}))

    def restore(self, file: Path | str) -> None:
        """Go on from what `save` wrote, as the session that was saved would have.

        Raises ValueError where the file is something else; the session then stays as it is.
        """
        try:
            saved = json.loads(Path(file).read_text("utf-8"))
            draws = torch.tensor(list(base64.b64decode(saved["draws"])), dtype=torch.uint8)
            encode_turns(self.tokenizer, saved["messages"])
            self.generator.set_state(draws)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{file} is no saved session: {error!r}; allowed: one of save."
            ) from error
        self.messages = saved["messages"]

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = []

    def undo(self) -> str | None:
        """Take back the last message and its reply. Returns the message, None if there was none."""
        while self.messages:
            message = self.messages.pop()
            if message["role"] == "user":
                return str(message["content"])
        return None

    def reply(self, text: str, *, begin: str = "") -> Reply:
        """Answer a message. Both go into the history, except that nothing said changes nothing.

        With `begin` the reply begins with that text, and the model goes on from there.
        """
        message = clean_message(text)
        if (fixed := self._without_model(message)) is not None:
            return fixed
        begun, started = self._begun(begin), time.perf_counter()
        read, candidates, scores = self._compute(self._compare, message, begun)
        seconds = time.perf_counter() - started
        timing = Timing(seconds, seconds, len(candidates[0]) - len(begun))
        return self._finish(message, read, candidates, timing, scores)

    def stream(self, text: str, *, begin: str = "") -> Generator[str, None, Reply]:
        """Answer a message, yielding the reply as it grows: each time the whole text so far.

        `begin` as of `reply`.
        Closing the iterator early stops the model; what was said till then stays in the history.
        With a `min_confidence` nothing is shown before the whole reply is judged. The generator's
        return value is the `Reply`.

        Raises:
            ValueError: The preset compares whole replies, which cannot stream.
        """
        self.preset.check_stream()
        message = clean_message(text)
        if (fixed := self._without_model(message)) is not None:
            yield fixed.text
            return fixed
        stream = self._start(message, self._begun(begin))
        shown = ""
        try:
            for said in stream:
                if not self.min_confidence and not self._withheld(said):
                    yield (shown := said)
        except BaseException:  # stopped: nobody looks inside, and whoever stopped it does not wait
            stream.stop()
            if shown:
                self._remember(message, shown)
            raise
        tokens = stream.stop()
        reply = self._finish(message, stream.read, [tokens], stream.timing(len(tokens)))
        if reply.text != shown:
            yield reply.text
        return reply

    def _start(self, message: str, begun: list[int]) -> TokenStream:
        return _Stream(self, message, begun)

    def _compute(self, function: Callable[..., _Result], *given: Any) -> _Result:
        """Call what computes with the model: here and now."""
        return function(*given)

    def _heard(self, message: str) -> list[dict[str, Any]]:
        return [*self.messages, {"role": "user", "content": message}]

    def _begun(self, text: str) -> list[int]:
        """Tokens of a reply's beginning."""
        return encode_reply(self.tokenizer, text, len(text.encode()) + 2)[:-1] if text else []

    def _generate(
        self, read: RnnSeq2SeqEncoderOutput, begun: list[int], **options: Any
    ) -> tuple[list[list[int]], list[float] | None]:
        """Tokens of each candidate, begun with `begun`, and what they are ranked by, if drawn."""
        given = [read["source_ids"][0].tolist()], self.preset, self.generator
        options |= {"encoder_outputs": read, "begin": begun}
        said = generate(self.model, self.tokenizer, *given, **options)
        ranked = self.preset.num_candidates > 1
        candidates = [spoken_tokens(self.tokenizer, row) for row in said.sequences.tolist()]
        return candidates, said.sequences_scores.tolist() if ranked else None

    def _compare(
        self, message: str, begun: list[int]
    ) -> tuple[RnnSeq2SeqEncoderOutput, list[list[int]], list[float] | None]:
        """What the encoder read, all candidates, and their scores."""
        read = self._reader.read(self._heard(message))
        return read, *self._generate(read, begun, candidates=self.preset.num_compared)

    def _finish(
        self,
        message: str,
        read: RnnSeq2SeqEncoderOutput | list[int],
        candidates: list[list[int]],
        timing: Timing,
        scores: list[float] | None = None,
    ) -> Reply:
        """Put message and reply into the history. `read` is what was read, or its tokens."""
        known = None if isinstance(read, list) else read
        context = read if isinstance(read, list) else read["source_ids"][0].tolist()
        texts = [reply_text(self.tokenizer, candidate) for candidate in candidates]

        def explained() -> list[Explanation]:
            seen = candidates if scores is None else candidates[:1]
            return [explain_reply(self.model, context, each, known) for each in seen]

        looks = self._compute(explained)
        best, sure = candidates[0], confidence(looks[0].log_probabilities)
        shown = [self._withheld(each) or each for each in texts]
        hidden = shown[0] != texts[0]  # then its tokens are not to be seen either
        text = shown[0] if any(c.isalnum() for c in shown[0]) else NOTHING_TO_SAY
        reply = Reply(
            text=text if sure >= self.min_confidence else self.fallback,
            tokens=[] if hidden else self._spell(best),
            candidates=shown,
            scores=scores or [float(look.log_probabilities.sum()) for look in looks],
            confidence=sure,
            source_tokens=self._spell(context),
            timing=timing,
            token_ids=[] if hidden else best,
            source_ids=context,
            explanation=None if hidden else looks[0],
        )
        self._remember(message, reply.text)
        return reply

    def _without_model(self, message: str) -> Reply | None:
        """What is answered without the model, to nothing and to a message in danger."""
        if not message:
            return _fixed_reply(NOTHING_SAID)
        if not self.safety or (text := check_message(message)) is None:
            return None
        self._remember(message, text)
        return _fixed_reply(text)

    def _withheld(self, text: str) -> str | None:
        return check_reply(text) if self.safety else None

    def _remember(self, message: str, reply: str) -> None:
        self.messages.append({"role": "user", "content": message})
        self.messages.append({"role": "assistant", "content": reply})

    def _spell(self, tokens: list[int]) -> list[str]:
        return [self.tokenizer.decode([token]) for token in tokens]


class TokenStream(Protocol):
    """A reply on its way, read as text that grows."""

    @property
    def read(self) -> RnnSeq2SeqEncoderOutput | list[int]:
        """What the model read, or its tokens."""

    def __iter__(self) -> Iterator[str]: ...

    def stop(self) -> list[int]:
        """End the reply. Returns its tokens."""

    def timing(self, tokens: int) -> Timing:
        """Till now, for so many tokens, those that it was begun with among them."""


class _Stream:
    """Generation in a thread of its own."""

    def __init__(self, session: ChatSession, message: str, begun: list[int]):
        self.begun = begun
        self.started = time.perf_counter()
        self.read = session._reader.read(session._heard(message))
        self.tokenizer = session.tokenizer
        self.pieces = TextIteratorStreamer(session.tokenizer, skip_special_tokens=True)
        self.stopped = Event()
        self.first: float | None = None
        self.said: list[int] | None = None
        self.error: BaseException | None = None
        self.thread = Thread(target=self._run, args=(session,), daemon=True)
        self.thread.start()

    def __iter__(self) -> Iterator[str]:
        said = ""
        for index, piece in enumerate(self.pieces):
            said += piece
            if not index or not said.strip():  # what the reply begins with comes first
                continue
            if self.first is None:
                self.first = time.perf_counter() - self.started
            yield readable(self.tokenizer, said)

    def stop(self) -> list[int]:
        self.stopped.set()
        self.thread.join()
        if self.error is not None:
            raise self.error
        assert self.said is not None
        return self.said

    def timing(self, tokens: int) -> Timing:
        total = time.perf_counter() - self.started
        return Timing(total if self.first is None else self.first, total, tokens - len(self.begun))

    def _run(self, session: ChatSession) -> None:
        criteria = StoppingCriteriaList([_StopWhen(self.stopped)])
        try:
            options: Any = {"streamer": self.pieces, "stopping_criteria": criteria}
            self.said = session._generate(self.read, self.begun, **options)[0][0]
        except BaseException as error:  # shown where the text is read, not lost in the thread
            self.error = error
        finally:
            self.pieces.end()


class _StopWhen(StoppingCriteria):
    def __init__(self, event: Event):
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def clean_message(text: str) -> str:
    """What a person typed, without control characters, and the end of it where it is very long."""
    return clean_text(text[-MAX_MESSAGE_CHARACTERS:])


def _fixed_reply(text: str) -> Reply:
    return Reply(text, [], [text], [0.0], 1.0, [], Timing(0.0, 0.0, 0))
