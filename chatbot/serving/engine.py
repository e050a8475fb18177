"""One model, many conversations: each joins a running batch and leaves it between two steps.

The engine steps the model itself, in one thread: `generate()` would wait for the slowest of a
batch. A reply is the same alone and in a crowd: each request has its own settings and draws.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, StoppingCriteriaList

from chatbot.decoding import generate, spoken_tokens
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.presets import GenerationPreset
from chatbot.serving.slots import LONGEST_REPLY, Request, Slots

# Contexts read at once, and between two steps: who talks already shall not wait for newcomers.
READ_TOGETHER, READ_BETWEEN = 16, 64
Event = int | Exception | None
_Result = TypeVar("_Result")


class EngineFullError(RuntimeError):
    """Too many requests wait already."""


class Handle:
    """A reply on its way. Iterating gives its tokens as they come, `<end>` included; who stops
    iterating, or drops the handle, ends the reply."""

    def __init__(self, request: Request, events: SimpleQueue[Event]):
        self._request, self._events = request, events

    def __iter__(self) -> Iterator[int]:
        try:
            while (event := self._events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.stop()

    @property
    def has_more(self) -> bool:
        """Whether the next token, or the end, has come already."""
        return not self._events.empty()

    def stop(self) -> None:
        """End the reply; what came before stays."""
        self._request.stopped = True

    __del__ = stop


class Engine:
    """Answers many conversations with one model, whose weights are only read.

    Args:
        model: In evaluation mode.
        tokenizer: That of the replies.
        slots: Conversations that are answered side by side.
        waiting: Requests that may wait for a slot; more are refused.
        max_source_tokens: Tokens of the longest context. None: as in training.
    """

    def __init__(
        self,
        model: RnnSeq2SeqForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        slots: int = 64,
        waiting: int = 256,
        max_source_tokens: int | None = None,
    ):
        for name, value in (("slots", slots), ("waiting", waiting)):
            if value < 1:
                raise ValueError(f"{name}={value!r} is not possible; allowed: 1 or more.")
        self.model, self.tokenizer, self.limit = model, tokenizer, waiting
        width = max_source_tokens or model.config.max_source_positions
        with torch.inference_mode():
            self._slots = Slots(model, tokenizer, slots, width)
        self._joining: list[Request] = []
        self._waiting: deque[Request] = deque()
        self._changed, self._closed = Condition(), False
        self._aside, self._beside = ThreadPoolExecutor(1), 0
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def bytes_per_slot(self) -> int:
        """Memory that a conversation takes while its reply is on its way."""
        return sum(tensor[0].nbytes for tensor in self._slots.tensors.values())

    @property
    def load(self) -> tuple[int, int]:
        """Conversations in slots, and requests that wait."""
        return len(self._slots.requests), len(self._waiting) + self._beside

    def submit(
        self,
        context: Sequence[int],
        preset: GenerationPreset,
        seed: int | None = None,
        deliver: Callable[[Event], object] | None = None,
        begin: Sequence[int] = (),
    ) -> Handle:
        """Ask for the reply to a context (`encode_context`). With beams, all comes at the end.

        Args:
            begin: Tokens that the reply begins with; they come first.
            seed: Of the draws. None: a new one.
            deliver: Called in the engine's thread, where it must not wait, with each token, then
                with None or the error that ended the reply. None: iterate over the handle.

        Raises:
            EngineFullError: Too many requests wait.
            ValueError: The context is empty, too long, or not of the model's tokens; or the reply
                might become longer than a slot.
        """
        width, words = self._slots.width, self.model.config.vocab_size
        if not 1 <= len(context) <= width:
            raise ValueError(f"context of {len(context)} tokens: allowed are 1 to {width}.")
        if not 0 <= min(context) <= max(context) < words:
            raise ValueError(f"context with a token outside 0 to {words - 1}.")
        if len(begin) + preset.max_new_tokens > LONGEST_REPLY:
            room = LONGEST_REPLY - preset.max_new_tokens
            raise ValueError(f"begin of {len(begin)} tokens: allowed are 0 to {room}.")
        events = SimpleQueue[Event]()
        generator = torch.Generator()
        generator.manual_seed(generator.seed() if seed is None else seed)
        request = Request(list(context), preset, generator, deliver or events.put, list(begin))
        with self._changed:
            if self._closed:
                raise RuntimeError("The engine is closed.")
            if self.load[1] >= self.limit:
                raise EngineFullError(f"{self.limit} requests wait already: try again later.")
            if preset.num_compared > 1:
                self._aside.submit(self._search, request)
                self._beside += 1
            else:
                self._waiting.append(request)
                self._changed.notify()
        return Handle(request, events)

    def compute(self, function: Callable[..., _Result], *given: Any) -> _Result:
        """What a function returns that computes with the model: a thread for all of them, beside
        the steps, so that a crowd does not keep a crowd of threads busy. Raises what it raises.
        """
        with self._changed:
            computed = self._aside.submit(function, *given)
            self._beside += 1
        try:
            return computed.result()
        finally:
            with self._changed:
                self._beside -= 1

    def close(self) -> None:
        """End all replies and the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._aside.shutdown()

    @torch.inference_mode()
    def _run(self) -> None:
        while self._has_work():
            try:
                self._admit()
                if self._slots.requests:
                    self._advance()
            except Exception as error:  # what a batch cannot survive, the engine must
                self._fail(error)
        self._joining += self._waiting
        self._fail(RuntimeError("The engine is closed."))

    def _has_work(self) -> bool:
        """Waits for something to do; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self._slots.requests)
            return not self._closed

    def _admit(self) -> None:
        """Read waiting requests into free slots, those of like length together."""
        free = min(self._slots.count - len(self._slots.requests), READ_BETWEEN)
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        self._joining = sorted(taken, key=lambda request: len(request.context))
        while together := self._joining[:READ_TOGETHER]:
            self._slots.join(together)
            del self._joining[:READ_TOGETHER]

    def _advance(self) -> None:
        """One step of all rows; who has finished, or is gone, leaves."""
        leaving = []
        for row, token in enumerate(self._slots.step()):
            request = self._slots.requests[row]
            request.tokens += 1
            _deliver(request, token)
            ended = token == self._slots.end or request.tokens == request.longest
            if ended or request.stopped:
                leaving.append(row)
                _deliver(request, None)
        if leaving:
            self._slots.leave(leaving)

    def _fail(self, error: Exception) -> None:
        """Tell everybody who joins or has joined."""
        for request in {*self._joining, *self._slots.requests}:
            _deliver(request, error)
        self._joining = []
        self._slots.leave(range(len(self._slots.requests)))

    def _search(self, request: Request) -> None:
        """A reply by beam search, in a thread of its own."""

        def stopped(ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
            return torch.full((len(ids),), request.stopped or self._closed, device=ids.device)

        end: Event = None
        try:
            asked = [request.context], request.preset, request.generator
            more: Any = {"stopping_criteria": StoppingCriteriaList([stopped])}
            found = generate(self.model, self.tokenizer, *asked, begin=request.begin, **more)
            for token in spoken_tokens(self.tokenizer, found.sequences[0].tolist()):
                _deliver(request, token)
        except Exception as error:
            end = error
        with self._changed:
            self._beside -= 1
        _deliver(request, end)


def _deliver(request: Request, event: Event) -> None:
    try:
        request.deliver(event)
    except Exception:  # the reader is gone, and its event loop with it
        request.stopped = True
