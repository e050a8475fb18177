"""A conversation whose replies an engine gives, side by side with those of others."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from transformers import TextStreamer

from chatbot.chat import ChatSession, Timing, TokenStream
from chatbot.decoding import readable
from chatbot.serving.engine import Engine
from chatbot.serving.slots import LONGEST_REPLY
from chatbot.tokenization import encode_context

_Result = TypeVar("_Result")


class EngineSession(ChatSession):
    """As `ChatSession`, whose arguments it takes, with an engine for the model.

    Args:
        engine: Shared freely. Draws are the engine's: of a seed another reply than of a session by
            itself, and the same however many others there are.
    """

    def __init__(self, engine: Engine, *arguments: Any, **options: Any):
        super().__init__(engine.model, engine.tokenizer, *arguments, **options)
        self.engine = engine

    def _start(self, message: str, begun: list[int]) -> TokenStream:
        if len(begun) + self.preset.max_new_tokens > LONGEST_REPLY:
            return super()._start(message, begun)  # too long for a slot
        return _EngineStream(self, message, begun)

    def _compute(self, function: Callable[..., _Result], *given: Any) -> _Result:
        return self.engine.compute(function, *given)


class _EngineStream:
    """Tokens of a slot as text, as far as its words are whole."""

    def __init__(self, session: EngineSession, message: str, begun: list[int]):
        self.begun, self.tokenizer = begun, session.tokenizer
        self.started, self.first = time.perf_counter(), 0.0
        longest = session.max_source_tokens
        self.read = encode_context(session.tokenizer, session._heard(message), longest)
        seed = int(torch.randint(2**62, (), generator=session.generator))
        self.handle = session.engine.submit(self.read, session.preset, seed, begin=begun)
        self.tokens: list[int] = []

    def __iter__(self) -> Iterator[str]:
        said = _Words(self.tokenizer, skip_special_tokens=True)
        for token in self.handle:
            self.tokens.append(token)
            said.put(torch.tensor([token]))
            if len(self.tokens) <= len(self.begun) or not said.text.strip():
                continue
            self.first = self.first or time.perf_counter() - self.started
            if not self.handle.has_more:  # who reads slower than the model speaks skips words
                yield readable(self.tokenizer, said.text)

    def stop(self) -> list[int]:
        self.handle.stop()
        return self.tokens or [*self.begun, self.tokenizer.eos_token_id]

    def timing(self, tokens: int) -> Timing:
        total = time.perf_counter() - self.started
        return Timing(self.first or total, total, tokens - len(self.begun))


class _Words(TextStreamer):
    """The text of tokens, without a last word that may go on."""

    text = ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text += text
