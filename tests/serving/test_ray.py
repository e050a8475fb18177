"""Two replicas behind the real Ray Serve, of which one is killed while both answer."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from runpy import run_path
from typing import Any

import httpx
import openai
import psutil
import pytest
import waiting
from chat_helpers import NEVER, make_chatbot

from chatbot.checkpoints import load_chatbot, save_chatbot
from chatbot.decoding import reply_text
from chatbot.presets import DEFAULT_GENERATION_PRESET, generation_preset
from chatbot.serving.client import BrokenReplyError, connect, stream_reply
from chatbot.serving.engine import Engine
from chatbot.tokenization import encode_context

pytestmark = pytest.mark.alone
HOST, KEY, STREAMS, LONG = "127.0.0.1", "a key of the tests", 6, 512
HELLO: Any = [{"role": "user", "content": "hello there"}]
PATIENCE = 4 * waiting.PATIENCE  # Ray starts many processes


@dataclass
class Service:
    """`scripts/serve.py --engine ray`, our client of it, and what its replicas do."""

    url: str
    client: openai.OpenAI
    marks: Path
    process: psutil.Process

    def answering(self) -> dict[int, int]:
        """Conversations in the last step of each living replica, by its process."""
        files = [file for file in self.marks.iterdir() if file.name.isdecimal()]
        return {
            int(file.name): int(file.read_text() or 0)
            for file in files
            if psutil.pid_exists(int(file.name))
        }

    def forget(self) -> None:
        for file in self.marks.iterdir():
            file.unlink()

    def ask(self, seed: int, tokens: int = 20) -> str:
        asked = {"messages": HELLO, "seed": seed, "max_tokens": tokens}
        reply = self.client.chat.completions.create(model="model", **asked)
        return reply.choices[0].message.content or ""

    def stream(self, seed: int, begun: SimpleQueue[int]) -> tuple[str, bool]:
        """A long reply, as far as it comes, and whether it is whole."""
        text = ""
        try:
            for part in stream_reply(self.client, "model", HELLO, seed=seed, max_tokens=LONG):
                if not text:
                    begun.put(seed)
                text += part
        except BrokenReplyError as error:
            return error.text, False
        return text, True


@pytest.fixture(scope="module")
def ray_is_here() -> None:
    """CI demands Ray; a developer may lack it."""
    if find_spec("ray") is None:
        message = "no Ray: pip install 'rnn-seq2seq-chatbot[ray]'"
        if os.environ.get("CHATBOT_REQUIRE_RAY"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def folder(ray_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose replies never end by themselves."""
    folder = tmp_path_factory.mktemp("ray") / "model"
    save_chatbot(*make_chatbot(NEVER), folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> Iterator[Callable[[int, int], str]]:
    """The reply of an engine by itself, by seed and tokens."""
    model, tokenizer = load_chatbot(folder)
    engine = Engine(model, tokenizer)
    context = encode_context(tokenizer, HELLO, model.config.max_source_positions)
    preset = generation_preset(DEFAULT_GENERATION_PRESET)

    def reply(seed: int, tokens: int) -> str:
        asked = replace(preset, max_new_tokens=tokens)
        return reply_text(tokenizer, list(engine.submit(context, asked, seed)))

    yield reply
    engine.close()


@pytest.fixture(scope="module")
def service(folder: Path, repository: Path) -> Iterator[Service]:
    """Two replicas in processes of their own, which Ctrl-C must end, and all of Ray's with them."""
    with socket.create_server((HOST, 0)) as listening:
        port = str(listening.getsockname()[1])
    marks = folder.parent / "marks"
    marks.mkdir()
    ray_folder = tempfile.mkdtemp(prefix="ray-")  # the paths of its sockets must be short
    environment = {
        **os.environ,
        "PYTHONPATH": str(repository / "tests"),
        "RAY_RUNTIME_ENV_HOOK": "ray_helpers.runtime_env",
        "RAY_TMPDIR": ray_folder,
        "RAY_gcs_server_port_wait_time_s": str(int(PATIENCE)),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PATIENCE),
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": str(PATIENCE),
        "CHATBOT_API_KEY": KEY,
        "CHATBOT_TEST_MARKS": str(marks),
    }
    call = [sys.executable, repository / "scripts" / "serve.py", "--engine", "ray", folder]
    call += ["--port", port, "--no-safety"]
    started: list[psutil.Process] = []
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            url = f"http://{HOST}:{port}/v1"
            assert any(f"2 replicas answer at {url}" in line for line in server.stdout)
            with connect(url, KEY) as client:
                yield Service(url, client, marks, psutil.Process(server.pid))
            started = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGINT)
            assert server.wait(PATIENCE) == 0
        finally:
            started = started or psutil.Process(server.pid).children(recursive=True)
            server.kill()
            left = psutil.wait_procs(started, PATIENCE)[1]
            for process in left:
                process.kill()
            shutil.rmtree(ray_folder, ignore_errors=True)
    assert left == []


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "chatbot.serving.ray_replica", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'rnn-seq2seq-chatbot\[ray\]'"):
        import_module("chatbot.serving.ray_replica")


@pytest.mark.usefixtures("ray_is_here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own code
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--replicas", "0"], "replicas=0 is not possible; allowed: 1 or more."),
        (["--host", "0.0.0.0"], "host='0.0.0.0' lets others in; needed: api_key."),
        (["nowhere"], "nowhere: no such model folder."),
    ],
)
def test_bad_options_are_said_before_anything_starts(
    repository: Path, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    script = run_path(str(repository / "scripts" / "serve.py"))
    assert script["serve_by_ray"](["--engine", "ray", *options]) == 2
    assert capsys.readouterr().err == f"serve.py: {complaint}\n"


def test_the_routes_are_those_of_one_server(service: Service) -> None:
    assert service.client.models.list().data[0].id == "model"
    assert httpx.get(f"{service.url}/models").status_code == 401
    key = {"Authorization": f"Bearer {KEY}"}
    foreign = httpx.get(f"{service.url}/models", headers={"Host": "example.org", **key})
    assert foreign.json()["error"]["message"] == "Host 'example.org' is not allowed here."
    with pytest.raises(openai.BadRequestError, match="role 'system'"):
        service.client.chat.completions.create(
            model="model", messages=[{"role": "system", "content": "be a pirate"}]
        )


def test_strangers_reach_the_routes_alone(service: Service) -> None:
    """Some port of a replica may listen everywhere; it asks for a token."""
    import grpc

    everywhere = [
        connection.laddr.port
        for process in service.process.children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip not in (HOST, "::1", f"::ffff:{HOST}")
    ]
    assert len(everywhere) <= 2
    for port in everywhere:
        with grpc.insecure_channel(f"{HOST}:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=PATIENCE)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_seed_gives_the_reply_of_an_engine_by_itself(
    service: Service, expected: Callable[[int, int], str]
) -> None:
    assert [service.ask(seed) for seed in range(4)] == [expected(seed, 20) for seed in range(4)]
    assert len({expected(seed, 20) for seed in range(4)}) > 1


def test_words_come_before_the_end(service: Service) -> None:
    reply = stream_reply(service.client, "model", HELLO, seed=0, max_tokens=LONG)
    service.forget()
    (service.marks / "slow").touch()
    assert next(reply)
    (service.marks / "slow").unlink()
    assert len(list(reply)) > 5


def test_a_killed_replica_costs_only_what_it_had_half_said(
    service: Service, expected: Callable[[int, int], str]
) -> None:
    service.forget()
    (service.marks / "slow").touch()
    begun = SimpleQueue[int]()
    with ThreadPoolExecutor(4 * STREAMS) as pool:
        streams = [pool.submit(service.stream, seed, begun) for seed in range(STREAMS)]
        for _ in streams:
            begun.get(timeout=PATIENCE)
        waiting.wait_until(lambda: sum(service.answering().values()) == STREAMS, PATIENCE)
        half_said = service.answering()
        asked, both = [], None
        while both is None or len(asked) < STREAMS:  # a replica with some of each kind
            asked.append(pool.submit(service.ask, len(asked)))
            waiting.wait_until(
                lambda: sum(service.answering().values()) == STREAMS + len(asked), PATIENCE
            )
            now = service.answering()
            both = both or next((pid for pid in half_said if now[pid] > half_said[pid]), None)
        os.kill(both, signal.SIGKILL)
        (service.marks / "slow").unlink()
        replies = [stream.result(PATIENCE) for stream in streams]
        answers = [answer.result(PATIENCE) for answer in asked]
    assert answers == [expected(seed, 20) for seed in range(len(asked))]
    assert len([text for text, whole in replies if not whole]) == half_said[both] > 0
    for seed, (text, whole) in enumerate(replies):
        reply = expected(seed, LONG)
        assert text == reply if whole else 0 < len(text) < len(reply) and reply.startswith(text)

    service.forget()
    waiting.wait_until(lambda: bool(service.ask(0)) and len(service.answering()) == 2, PATIENCE)
    assert both not in service.answering()
