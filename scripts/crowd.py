"""Measure one process that talks with a crowd, two threads.

    python scripts/crowd.py                              the shipped model, 1 to 1,000 at once
    python scripts/crowd.py runs/mine/int8 --threads 1
    python scripts/crowd.py --http                       1, 10 and 100 clients over HTTP

Each conversation asks again as soon as it is answered, in process for --seconds after a warm-up. A
token's second is one of the clock; CPU seconds are those of the whole process.
"""

import argparse
import asyncio
import json
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Lock

import httpx
import numpy as np
import torch

from chatbot.checkpoints import load_chatbot
from chatbot.presets import generation_preset
from chatbot.serving.engine import Engine
from chatbot.tokenization import encode_context

MESSAGES = ("hello!", "what is your favourite food?", "tell me something about the sea, please")
MESSAGES += ("i had a long day at work and now i want to cook something nice. any ideas?", "why?")
COLUMNS = f"{'at once':>8}{'tokens/s':>10}{'each':>8}{'a CPU-s':>9}{'first, p95':>12}"


class Crowd:
    """Conversations that ask again and again, and when their tokens came."""

    def __init__(self, engine: Engine, contexts: Sequence[list[int]], count: int):
        self.engine, self.contexts, self.preset = engine, contexts, generation_preset("lively")
        self.tokens, self.open, self.first = 0, True, list[float]()
        self.lock = Lock()
        with self.lock:  # a reply may end before all have asked
            self.handles = [self.ask(place) for place in range(count)]

    def ask(self, place: int) -> object:
        """Ask for a reply; the next is asked for when it ends."""
        began, is_first = time.perf_counter(), True

        def deliver(event: int | Exception | None) -> None:
            nonlocal is_first
            if isinstance(event, Exception):
                return
            if event is None:
                if self.open:
                    again = self.ask(place)
                    with self.lock:
                        self.handles[place] = again
                return
            self.tokens += 1
            if is_first:
                self.first.append(time.perf_counter() - began)
                is_first = False

        context = self.contexts[place % len(self.contexts)]
        return self.engine.submit(context, self.preset, None, deliver)


def row(count: int, tokens: int, seconds: float, used: float, first: Sequence[float]) -> str:
    """A line of the table."""
    speed = tokens / seconds
    late = 1000 * np.quantile(first, 0.95)
    return f"{count:8,}{speed:10,.0f}{speed / count:8.1f}{tokens / used:9,.0f}{late:9,.0f} ms"


def in_process(folder: Path | None, counts: Sequence[int], seconds: float) -> None:
    """A table of crowds of these sizes, each in an engine of as many slots."""
    model, tokenizer = load_chatbot(folder)
    longest, say = model.config.max_source_positions, {"role": "user"}
    contexts = [encode_context(tokenizer, [say | {"content": m}], longest) for m in MESSAGES]
    print(f"{COLUMNS}{'kB each':>9}")
    for count in counts:
        with closing(Engine(model, tokenizer, count, 2 * count)) as engine:
            crowd = Crowd(engine, contexts, count)
            clock = Event()
            clock.wait(1)  # the crowd gathers, and kernels warm up
            crowd.tokens, crowd.first = 0, []
            began, used = time.perf_counter(), time.process_time()
            clock.wait(seconds)
            passed, used = time.perf_counter() - began, time.process_time() - used
            said = row(count, crowd.tokens, passed, used, crowd.first)
            print(f"{said}{engine.bytes_per_slot / 1000:9.0f}", flush=True)
            crowd.open = False


async def client(api: httpx.AsyncClient, url: str, until: float, first: list[float]) -> int:
    """Streams replies one after the other. Returns the tokens."""
    tokens, place = 0, 0
    options = {"model": "chatbot", "stream": True, "stream_options": {"include_usage": True}}
    while time.perf_counter() < until:
        began, come, place = time.perf_counter(), False, place + 1
        said = {"role": "user", "content": MESSAGES[place % len(MESSAGES)]}
        body = {"messages": [said], **options}
        async with api.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if not come and '"content": "' in line and '"content": ""' not in line:
                    first.append(time.perf_counter() - began)
                    come = True
                elif '"completion_tokens"' in line:
                    tokens += json.loads(line[6:])["usage"]["completion_tokens"]
    return tokens


def serve(folder: Path | None, listening: socket.socket, threads: int) -> None:
    """The routes, in a process of their own."""
    import uvicorn

    from chatbot.serving.openai import create_app

    torch.set_num_threads(threads)
    app = create_app({"chatbot": Engine(*load_chatbot(folder), slots=128)})
    uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_keep_alive=60)).run([listening])


async def over_http(url: str, counts: Sequence[int], seconds: float) -> None:
    """The table again. Clients run in this process, whose CPU seconds these are."""
    print(COLUMNS)
    for count in counts:
        first, began, used = list[float](), time.perf_counter(), time.process_time()
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits()) as api:
            clients = (client(api, url, began + seconds, first) for _ in range(count))
            tokens = sum(await asyncio.gather(*clients))
        passed, used = time.perf_counter() - began, time.process_time() - used
        print(row(count, tokens, passed, used, first), flush=True)


def main() -> None:
    """Parse, call."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, help="folder of a model; else the shipped")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=10, help="that are timed (10)")
    parser.add_argument("--threads", type=int, default=2, help="of the engine (2)")
    parser.add_argument("--http", action="store_true", help="over HTTP, to 100 clients")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.http:
        return in_process(options.model, options.at_once, options.seconds)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        arguments = options.model, listening, options.threads
        server = get_context("spawn").Process(target=serve, args=arguments, daemon=True)
        server.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        httpx.get(f"{url}/v1/models", timeout=120)  # answered once the model is loaded
        asyncio.run(over_http(url, [n for n in options.at_once if n <= 100], options.seconds))
        server.terminate()


if __name__ == "__main__":
    main()
