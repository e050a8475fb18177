"""OpenAI-compatible routes: `/v1/models` and `/v1/chat/completions`, streamed and not.

A request carries the whole conversation, and nothing of it stays here after the reply. What a
client sends is checked as strictly as what a person types on the page.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from chatbot.chat import FALLBACK, MAX_MESSAGE_CHARACTERS, clean_message
from chatbot.decoding import confidence, reply_text
from chatbot.explain import explain_reply
from chatbot.presets import DEFAULT_GENERATION_PRESET, GenerationPreset, generation_presets
from chatbot.safety import check_message, check_reply
from chatbot.serving.engine import Engine, EngineFullError, Event
from chatbot.serving.guard import LOOPBACK, Rate, client_of, error_body, guarded_app
from chatbot.serving.slots import LONGEST_REPLY
from chatbot.tokenization import encode_context, is_chat

MAX_MESSAGES, MAX_STOPS = 200, 4
Way = tuple[Engine, GenerationPreset]  # what an id of /v1/models stands for
READ = {"messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
READ |= {"temperature", "top_p", "seed", "stop"}
UNHEEDED = {"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"}
# Fields of OpenAI's that this model does not have: allowed where they ask for nothing.
NEUTRAL = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False, "tools": []}
NEUTRAL |= {"logit_bias": {}, "response_format": {"type": "text"}, "tool_choice": "none"}


class ApiError(Exception):
    """A refusal, with the body that OpenAI's clients expect."""

    def __init__(self, status: int, message: str, param: str | None = None):
        super().__init__(message)
        self.status, self.body = status, error_body(status, message, param)


@dataclass(frozen=True)
class Asked:
    """A request that makes sense, and the model that it is for."""

    engine: Engine
    model: str
    messages: list[dict[str, str]]
    preset: GenerationPreset
    seed: int | None
    stops: list[str]
    stream: bool
    usage: bool  # whether a stream ends with the token counts


@dataclass
class Answer:
    """A reply as it grows: `text` may be shown, the end of it being held back until it is sure."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None


def create_app(
    engines: Mapping[str, Engine],
    *,
    api_key: str | None = None,
    hosts: Sequence[str] | None = LOOPBACK,
    safety: bool = True,
    rate: Rate | None = None,
    min_confidence: float = 0.0,
    fallback: str = FALLBACK,
) -> FastAPI:
    """The routes to some engines, which end with the server.

    Args:
        engines: By the names of their models; `name:preset` chooses how replies are made.
        api_key: What a client must show. None: nothing.
        hosts: Names under which the server may be called, and its pages may call it. None: any.
        safety: Whether messages and replies are checked (`chatbot.safety`).
        rate: How many messages a client may send. None: any number.
        min_confidence, fallback: As of `ChatSession`. With the first, a stream comes at its end.

    Raises:
        ValueError: A model of parallel text, or neither key nor hosts.
    """
    if not all(is_chat(engine.tokenizer) for engine in engines.values()):
        raise ValueError("a model of parallel text does not chat; allowed: a model of dialogues")
    if hosts is None and not api_key:
        raise ValueError("api_key=None is not possible with hosts=None; allowed: a key.")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for engine in engines.values():
            engine.close()

    async def check_key(request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if api_key and not secrets.compare_digest(given, f"Bearer {api_key}".encode()):
            raise ApiError(401, "The API key is missing or wrong: Authorization: Bearer KEY.")

    app = guarded_app(hosts, lifespan=lifespan)
    app.state.engines = engines
    routes = APIRouter(prefix="/v1", dependencies=[Depends(check_key)])
    ways = _ways(engines)

    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status)

    @routes.get("/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_entry(name) for name in ways]}

    @routes.get("/models/{model_id:path}")
    async def show_model(model_id: str) -> dict[str, Any]:
        return _entry(_known(model_id, ways))

    @routes.post("/chat/completions", response_model=None)
    async def complete(request: Request) -> JSONResponse | StreamingResponse:
        asked = _read(await _body(request), ways)
        if rate is not None and not rate.allows(client_of(request.scope)):
            raise ApiError(429, f"More than {rate.most} messages in a minute. Please wait.")
        width = asked.engine.model.config.max_source_positions
        context = encode_context(asked.engine.tokenizer, asked.messages, width)
        answers = _answers(asked, context, safety)
        if min_confidence:
            answers = _judged(answers, asked, context, min_confidence, fallback)
        answer = await _first(answers, request)
        if asked.stream:
            return StreamingResponse(_sse(answer, answers, asked, len(context)), media_type=SSE)
        while answer.finish is None and not await request.is_disconnected():
            answer = await anext(answers)
        await answers.aclose()
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": None}
        body = {"choices": [choice], "usage": _usage(len(context), answer)}
        return JSONResponse(_head(asked, "chat.completion") | body)

    @routes.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def unknown(path: str) -> None:
        raise ApiError(404, f"/v1/{path} is unknown; allowed: /v1/models, /v1/chat/completions.")

    app.include_router(routes)
    return app


SSE = "text/event-stream"
LOOK_SECONDS = 1.0  # between two looks at whether a client still waits for the first word


def _ways(engines: Mapping[str, Engine]) -> dict[str, Way]:
    """Each model as it answers by default, and with each preset."""
    presets = generation_presets()
    ways = {}
    for name, engine in engines.items():
        ways[name] = engine, presets[DEFAULT_GENERATION_PRESET]
        ways |= {f"{name}:{preset}": (engine, values) for preset, values in presets.items()}
    return ways


def _entry(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "chatbot"}


async def _body(request: Request) -> Mapping[str, Any]:
    """The request's JSON."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ApiError(400, "The request is not JSON.") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The request is not a JSON object.")
    return {key: value for key, value in body.items() if value is not None}


def _read(body: Mapping[str, Any], ways: Mapping[str, Way]) -> Asked:
    """Check all that was sent. Raises ApiError."""
    for key, value in body.items():
        if key not in READ | UNHEEDED and (key not in NEUTRAL or value != NEUTRAL[key]):
            only = f"allowed: {NEUTRAL[key]!r}" if key in NEUTRAL else "it is unknown"
            raise ApiError(400, f"{key} is not possible with this model; {only}.", key)
    options = _typed(body, "stream_options", dict, {})
    stops = body.get("stop", [])
    stops = [stops] if isinstance(stops, str) else stops
    texts = isinstance(stops, list) and all(isinstance(s, str) and 0 < len(s) <= 100 for s in stops)
    if not texts or len(stops) > MAX_STOPS:
        raise ApiError(400, f"stop: at most {MAX_STOPS} texts of 1 to 100 characters.", "stop")
    seed = _typed(body, "seed", int, None)
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise ApiError(400, "seed must be a whole number of 64 bits.", "seed")
    model = _known(_typed(body, "model", str, ""), ways)
    engine, preset = ways[model]
    messages, preset = _messages(body.get("messages")), _preset(body, preset)
    stream = _typed(body, "stream", bool, False), _typed(options, "include_usage", bool, False)
    return Asked(engine, model, messages, preset, seed, stops, *stream)


def _typed(body: Mapping[str, Any], key: str, kind: Any, default: Any) -> Any:
    value = body.get(key, default)
    if value is not default and (
        not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    ):
        raise ApiError(400, f"{key}={value!r} is of the wrong type.", key)
    return value


def _known(model: str, ways: Iterable[str]) -> str:
    if model not in ways:
        raise ApiError(404, f"model {model!r} is unknown; allowed: {', '.join(ways)}.", "model")
    return model


def _preset(body: Mapping[str, Any], preset: GenerationPreset) -> GenerationPreset:
    """How the reply is chosen, with the changes that were asked for."""
    names = ("temperature", "top_p")
    changes = {key: _typed(body, key, int | float, None) for key in names if key in body}
    limits = [
        _typed(body, k, int, None) for k in ("max_completion_tokens", "max_tokens") if k in body
    ]
    if limits:
        changes["max_new_tokens"] = most = min(limits[0], LONGEST_REPLY)
        changes["min_new_tokens"] = max(0, min(preset.min_new_tokens, most))
    try:
        return replace(preset, **changes)
    except ValueError as error:
        raise ApiError(400, str(error), next(iter(changes))) from None


def _messages(given: object) -> list[dict[str, str]]:
    """The conversation, cleaned as on the page."""
    if not isinstance(given, list) or not given:
        raise ApiError(400, "messages must be a list of at least one message.", "messages")
    if len(given) > MAX_MESSAGES:
        raise ApiError(400, f"messages: at most {MAX_MESSAGES}; leave out the oldest.", "messages")
    messages = []
    for place, message in enumerate(given):
        where = f"messages[{place}]"
        role = message.get("role") if isinstance(message, dict) else None
        text = _text(message.get("content"), where) if isinstance(message, dict) else ""
        if role in ("system", "developer") and not text.strip():
            continue
        if role not in ("user", "assistant"):
            why = "this model was never taught to follow instructions" if text else "not possible"
            raise ApiError(400, f"role {role!r}: {why}; allowed: user, assistant.", f"{where}.role")
        if len(text) > MAX_MESSAGE_CHARACTERS:
            long = f"{len(text):,} characters; allowed: {MAX_MESSAGE_CHARACTERS:,}."
            raise ApiError(400, f"{where} has {long}", f"{where}.content")
        messages.append({"role": str(role), "content": clean_message(text)})
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"]:
        raise ApiError(400, "The last message must be the user's, and say something.", "messages")
    return messages


def _text(content: object, where: str) -> str:
    """The text of a message, which may come in parts."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = []
    for part in parts if isinstance(parts, list) else [None]:
        if not (isinstance(part, dict) and isinstance(part.get("text"), str)):
            raise ApiError(400, f"{where}.content must be text.", f"{where}.content")
        texts.append(part["text"].encode("utf-8", "replace").decode())
    return "".join(texts)


async def _answers(asked: Asked, context: list[int], safety: bool) -> AsyncGenerator[Answer, None]:
    """The reply as it grows. Leaving early stops the model. Raises ApiError."""
    kind = check_message(asked.messages[-1]["content"]) if safety else None
    if kind is not None:
        yield Answer(kind, [], "content_filter")
        return
    tokenizer = asked.engine.tokenizer
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()

    def deliver(event: Event) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    try:
        handle = asked.engine.submit(context, asked.preset, asked.seed, deliver)
    except EngineFullError as error:
        raise ApiError(429, str(error)) from None
    except RuntimeError as error:
        raise ApiError(503, str(error)) from None
    answer = Answer()
    try:
        while answer.finish is None:
            event = await events.get()
            if isinstance(event, Exception):
                raise ApiError(503, "The reply failed. Try again.")
            if event is None:
                ended = answer.tokens[-1:] == [tokenizer.eos_token_id]
                answer.finish = "stop" if ended else "length"
            else:
                answer.tokens.append(event)
            _grow(answer, reply_text(tokenizer, answer.tokens), asked.stops, safety)
            yield answer
    finally:
        handle.stop()


async def _first(answers: AsyncGenerator[Answer, None], request: Request) -> Answer:
    """The first answer: what cannot be answered is said before a stream begins.

    Raises ApiError where the client is gone before it, who would keep a place in the line.
    """
    coming = asyncio.ensure_future(anext(answers))
    while not (await asyncio.wait([coming], timeout=LOOK_SECONDS))[0]:
        if await request.is_disconnected():
            coming.cancel()
            await asyncio.wait([coming])
            raise ApiError(499, "Nobody waits for the reply any more.")
    return coming.result()


async def _judged(
    answers: AsyncGenerator[Answer, None],
    asked: Asked,
    context: list[int],
    least: float,
    fallback: str,
) -> AsyncGenerator[Answer, None]:
    """The reply held back until it is whole; one of too little confidence gives way."""
    model, compute = asked.engine.model, asked.engine.compute
    async with aclosing(answers):
        async for answer in answers:
            if answer.finish is None:
                yield Answer()
                continue
            if answer.tokens:  # a fixed text has none
                look = await asyncio.to_thread(
                    compute, explain_reply, model, context, answer.tokens
                )
                if confidence(look.log_probabilities) < least:
                    answer.text, answer.finish = fallback, "stop"
            yield answer


def _grow(answer: Answer, text: str, stops: Sequence[str], safety: bool) -> None:
    """Show more of a reply: whole words, and nothing that may become a stop text or a slur."""
    found = [text.find(stop) for stop in stops if stop in text]
    if found:
        text, answer.finish = text[: min(found)].rstrip(), "stop"
    withheld = check_reply(text) if safety else None
    if withheld is not None:
        text, answer.finish = f"{answer.text} {withheld}".strip(), "content_filter"
    if answer.finish is None:
        sure = len(text) - max(map(len, stops), default=0)
        text = text[: max(len(answer.text), text.rfind(" ", 0, max(0, sure)))]
    answer.text = text


async def _sse(
    answer: Answer, answers: AsyncIterator[Answer], asked: Asked, read: int
) -> AsyncIterator[str]:
    """Server-sent events, each with what is new of the reply."""
    head, shown = _head(asked, "chat.completion.chunk"), 0

    def chunk(delta: Mapping[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event({**head, "choices": [choice]} | ({"usage": None} if asked.usage else {}))

    yield chunk({"role": "assistant", "content": ""})
    try:
        while True:
            if len(answer.text) > shown:
                yield chunk({"content": answer.text[shown:]})
                shown = len(answer.text)
            if answer.finish is not None:
                break
            answer = await anext(answers)
    except ApiError as error:
        yield _event(error.body)
        return
    yield chunk({}, answer.finish)
    if asked.usage:
        yield _event({**head, "choices": [], "usage": _usage(read, answer)})
    yield "data: [DONE]\n\n"


def _event(value: object) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _head(asked: Asked, kind: str) -> dict[str, Any]:
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind}
    return head | {"created": int(time.time()), "model": asked.model}


def _usage(read: int, answer: Answer) -> dict[str, int]:
    said = len(answer.tokens)
    return {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}
