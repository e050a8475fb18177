"""The routes, called by the official client over a real socket."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from chat_helpers import NEVER, Chatbot, make_chatbot, make_fixed_chatbot
from waiting import wait_until

from chatbot import safety
from chatbot.chat import ChatSession
from chatbot.presets import GenerationPreset
from chatbot.serving.engine import Engine
from chatbot.serving.guard import MAX_REQUEST_BYTES
from chatbot.serving.openai import MAX_MESSAGES, create_app
from chatbot.serving.slots import LONGEST_REPLY

HELLO: Any = [{"role": "user", "content": "hello there"}]
KEY = "a key of the tests"
Serve = Callable[..., str]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """A server in a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    ready, startup = threading.Event(), server.startup

    async def started(*args: Any, **kwargs: Any) -> None:
        await startup(*args, **kwargs)
        ready.set()

    server.startup = started  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda chatbot, slots=64, **options: stack.enter_context(
            served(create_app({"chatbot": Engine(*chatbot, slots)}, **options))
        )


@pytest.fixture(scope="module")
def address(serve: Serve, tiny_chatbot: Chatbot) -> str:
    return serve(tiny_chatbot, api_key=KEY)


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return client_of(address)


def client_of(address: str, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def ask(client: openai.OpenAI, messages: Any = HELLO, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "chatbot", "messages": messages, **options})


def test_models_are_listed(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "chatbot"
    assert "chatbot:careful" in names
    assert client.models.retrieve("chatbot:careful").id == "chatbot:careful"
    with pytest.raises(openai.NotFoundError, match="'gpt' is unknown"):
        client.models.retrieve("gpt")


@pytest.mark.parametrize("way", ["greedy", "precise"])
def test_a_reply_is_that_of_a_session(
    client: openai.OpenAI, tiny_chatbot: Chatbot, way: str
) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "oh"}, {"role": "user", "content": "so?"}]
    expected = ChatSession(*tiny_chatbot, way, messages=messages[:2]).reply("so?")
    found = ask(client, messages, model=f"chatbot:{way}")
    assert found.choices[0].message.content == expected.text
    assert found.choices[0].message.role == "assistant"
    assert found.usage.prompt_tokens == len(expected.source_tokens)
    assert found.usage.completion_tokens == len(expected.tokens)
    assert found.usage.total_tokens == len(expected.source_tokens) + len(expected.tokens)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "top_p": 0.8}, {"stop": ["e", "t"]}])
def test_a_stream_is_the_reply_in_parts(client: openai.OpenAI, options: dict[str, Any]) -> None:
    options = {"seed": 3, "max_tokens": 25, **options}
    whole = ask(client, **options).choices[0]
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}, **options))
    *parts, last, usage = chunks
    assert "".join(part.choices[0].delta.content for part in parts) == whole.message.content
    assert last.choices[0].finish_reason == whole.finish_reason
    assert usage.choices == []
    assert usage.usage.completion_tokens <= 25
    assert len({chunk.id for chunk in chunks}) == 1


def test_who_hangs_up_in_the_line_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatbot.serving.openai.LOOK_SECONDS", 0.05)
    engine, go_on = Engine(*make_chatbot(NEVER), 1), threading.Event()
    hook = engine.model.lm_head.register_forward_pre_hook(lambda *_: go_on.wait(60) and None)
    first = engine.submit([6], GenerationPreset())
    with served(create_app({"chatbot": engine}, hosts=["127.0.0.1"])) as url:
        wait_until(lambda: engine.load == (1, 0))
        body = {"model": "chatbot", "messages": HELLO}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=0.5)
        wait_until(lambda: all(request.stopped for request in engine._waiting))
        go_on.set()
        assert len(list(first)) == 48
    hook.remove()


def test_words_come_one_by_one(serve: Serve) -> None:
    client = client_of(serve(make_chatbot(NEVER)))
    chunks = list(ask(client, stream=True, max_completion_tokens=40, seed=0))
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) > 5
    assert chunks[-1].choices[0].finish_reason == "length"


def test_seed_and_temperature_are_heeded(client: openai.OpenAI) -> None:
    def said(**options: Any) -> str:
        return str(ask(client, **options).choices[0].message.content)

    drawn = [said(seed=seed, temperature=3, top_p=1) for seed in (1, 2, 3)]
    assert drawn == [said(seed=seed, temperature=3, top_p=1) for seed in (1, 2, 3)]
    assert len(set(drawn)) > 1
    assert said(seed=1, temperature=0) == said(seed=2, temperature=0)


def test_a_limit_and_a_stop_text_end_the_reply(serve: Serve) -> None:
    client = client_of(serve(make_fixed_chatbot({"Ġthe": 1.0})))
    short = ask(client, max_tokens=3, model="chatbot:greedy")
    assert (short.usage.completion_tokens, short.choices[0].finish_reason) == (3, "length")
    assert short.choices[0].message.content == "The the the"
    stopped = ask(client, stop="the the", model="chatbot:greedy").choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("The", "stop")
    held = list(ask(client, stop=" the the the", model="chatbot:greedy", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in held) == "The"
    most = ask(client, max_tokens=10_000, model="chatbot:greedy")
    assert most.usage.completion_tokens == LONGEST_REPLY


BAD: list[tuple[str, dict[str, Any]]] = [
    ("n", {"n": 2}),
    ("presence_penalty", {"presence_penalty": 0.5}),
    ("colour", {"extra_body": {"colour": 1}}),
    ("temperature", {"temperature": 7}),
    ("temperature", {"temperature": "hot"}),
    ("temperature", {"temperature": 0.5, "model": "chatbot:precise"}),
    ("top_p", {"top_p": True}),
    ("max_new_tokens", {"max_tokens": 0}),
    ("seed", {"seed": 2**63}),
    ("stream", {"stream": "yes"}),
    ("stop", {"stop": ["a"] * 5}),
    ("stop", {"stop": [""]}),
    ("messages", {"messages": []}),
    ("messages", {"messages": "hi"}),
    ("say something", {"messages": [{"role": "user", "content": " \u200b "}]}),
    ("the user's", {"messages": [*HELLO, {"role": "assistant", "content": "hi"}]}),
    ("instructions", {"messages": [{"role": "system", "content": "Be rude."}, *HELLO]}),
    ("'tool'", {"messages": [{"role": "tool", "content": ""}]}),
    ("content must be text", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    ("10,001 characters", {"messages": [{"role": "user", "content": "a" * 10_001}]}),
    ("at most 200", {"messages": HELLO * (MAX_MESSAGES + 1)}),
]


@pytest.mark.parametrize(
    ("said", "options"), BAD, ids=[f"{i}-{bad[0]}" for i, bad in enumerate(BAD)]
)
def test_what_makes_no_sense_is_refused(
    client: openai.OpenAI, said: str, options: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **options)
    assert said in caught.value.body["message"]  # type: ignore[index]
    assert caught.value.type == "invalid_request_error"


def test_what_asks_for_nothing_is_allowed(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]
    plain = {
        "n": 1,
        "frequency_penalty": 0,
        "user": "me",
        "stop": None,
        "tools": [],
        "logit_bias": {},
    }
    empty = {"role": "system", "content": ""}
    same = [
        ask(client, [empty, {"role": "user", "content": parts}], **plain, seed=1),
        ask(client, seed=1),
    ]
    assert same[0].choices == same[1].choices


def test_the_key_is_needed(address: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        ask(client_of(address, "another"))
    assert httpx.get(f"{address}/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("header", "value"),
    [("Host", "evil.example"), ("Origin", "http://evil.example"), ("Origin", "null")],
)
def test_other_pages_are_refused(address: str, header: str, value: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", header: value}
    refused = httpx.get(f"{address}/v1/models", headers=headers)
    assert refused.status_code == 403
    assert value in refused.json()["error"]["message"]
    headers[header] = f"{'http://' if header == 'Origin' else ''}localhost:1"
    assert httpx.get(f"{address}/v1/models", headers=headers).status_code == 200


def test_errors_have_a_body(address: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{address}/v1/chat/completions"
    long = json.dumps({"messages": "a" * MAX_REQUEST_BYTES}).encode()
    cases = [(b"{", 400), (b"[1]", 400), (long, 413), (b"[" * 100_000, 400)]
    for body, status in cases:
        found = httpx.post(url, content=body, headers=headers)
        assert (found.status_code, found.json()["error"]["type"]) == (
            status,
            "invalid_request_error",
        )
    assert httpx.get(f"{address}/v1/embeddings", headers=headers).json()["error"]["param"] is None


def test_a_full_server_says_so(serve: Serve) -> None:
    app = create_app({"chatbot": Engine(*make_chatbot(NEVER), slots=1, waiting=1)})
    endless = GenerationPreset(max_new_tokens=512, min_new_tokens=512)
    with served(app) as address:
        running = iter(app.state.engines["chatbot"].submit([6], endless))
        next(running)
        waiting = app.state.engines["chatbot"].submit([6], endless)
        with pytest.raises(openai.RateLimitError, match="1 requests wait"):
            ask(client_of(address))
        del running, waiting


def test_a_reader_who_leaves_frees_the_slot(serve: Serve) -> None:
    client = client_of(serve(make_chatbot(NEVER), 1))
    for _ in range(3):
        stream = ask(client, stream=True, max_tokens=512)
        next(iter(stream))
        stream.close()
    assert ask(client, max_tokens=5).usage.completion_tokens == 5


def test_an_error_ends_a_stream_with_a_sentence(serve: Serve, monkeypatch: Any) -> None:
    app = create_app({"chatbot": Engine(*make_chatbot(NEVER))})
    with served(app) as address:
        stream = iter(ask(client_of(address), stream=True, max_tokens=512))
        next(stream)
        monkeypatch.setattr(app.state.engines["chatbot"]._slots, "weights", None)
        with pytest.raises(openai.APIError, match="Try again"):
            list(stream)


def test_an_unsure_reply_gives_way(serve: Serve) -> None:
    """As on the page: streamed or not, nothing of it is seen."""
    unsure = {"min_confidence": 1.0, "fallback": "Ask my boss."}
    client = client_of(serve(make_chatbot(), **unsure))
    found = ask(client).choices[0]
    assert (found.message.content, found.finish_reason) == ("Ask my boss.", "stop")
    chunks = [chunk.choices[0].delta.content for chunk in ask(client, stream=True)]
    assert "".join(filter(None, chunks)) == "Ask my boss."
    message = [{"role": "user", "content": "i want to die"}]
    assert ask(client, message).choices[0].message.content == safety.check_message("i want to die")
    sure = client_of(serve(make_chatbot(), min_confidence=1e-9, fallback="no"))
    assert ask(sure).choices[0].message.content not in ("no", "")


def test_safety_comes_first_and_can_be_left_off(serve: Serve) -> None:
    message = [{"role": "user", "content": "i want to die"}]
    found = ask(client_of(serve(make_chatbot())), message).choices[0]
    assert found.message.content == safety.check_message("i want to die")
    assert found.finish_reason == "content_filter"
    other = ask(client_of(serve(make_chatbot(), safety=False)), message).choices[0]
    assert other.finish_reason != "content_filter"


def test_a_slur_is_withheld_before_it_is_shown(serve: Serve, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "chatbot.serving.openai.check_reply", lambda text: "No." if "the" in text.lower() else None
    )
    client = client_of(serve(make_fixed_chatbot({"Ġthe": 1.0})))
    chunks = list(ask(client, stream=True, model="chatbot:greedy"))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert (said, chunks[-1].choices[0].finish_reason) == ("No.", "content_filter")


def test_a_server_for_others_needs_a_key(tiny_chatbot: Chatbot) -> None:
    with pytest.raises(ValueError, match="api_key=None"):
        create_app({"chatbot": Engine(*tiny_chatbot)}, hosts=None)
