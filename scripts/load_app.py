"""Put a crowd of users on the real server for some minutes, and look for what goes wrong.

    python scripts/load_app.py                    50 users for 5 minutes, the shipped model
    python scripts/load_app.py --quick            6 users for some seconds

Four of five users sit at the page, over HTTP as a browser does; the others are programs at OpenAI's
routes. They stop replies, close tabs and reload. Each has a word of its own, which nobody else may
ever see, and an opening whose reply must be the same in the crowd as it was alone. Exits with 1
after an error or a mixed-up word.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from gradio_client.utils import apply_diff

WARM_UP = 500  # replies before memory counts
OPENINGS = ("hello, i am {}!", "do you know what {} is?", "tell me something about {}.")
MORE = ("why?", "i had a long day at work.", "what is your favourite food?", "{} and what else?")
ACTS = {"stopped": 0.1, "closed": 0.05, "reloaded": 0.05}  # of all replies; tabs are closed
Talk = list[dict[str, str]]


@dataclass
class Findings:
    """What the crowd saw."""

    first: list[float] = field(default_factory=list)  # seconds to the first token
    replies: int = 0
    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[int, float]] = field(default_factory=list)  # replies, MB


class Tab:
    """The page in a tab: a session of Gradio's, and the conversation that the browser holds."""

    def __init__(self, http: httpx.AsyncClient, config: dict[str, Any], shown: Any = None):
        self.http, self.session = http, f"{random.getrandbits(64):x}"
        self.parts = {c["props"].get("elem_id"): c for c in config["components"]}
        self.box, self.transcript = (self.parts[name]["id"] for name in ("message", "history"))
        calls = config["dependencies"]
        self.reply = next(c for c in calls if [self.box, "submit"] in c["targets"])
        self.settle = next(c for c in calls if c["trigger_after"] == self.reply["id"])
        self.values = {c["id"]: c["props"].get("value") for c in config["components"]}
        self.values[self.transcript], self.event = shown, ""
        self.heart = asyncio.create_task(self._beat())

    async def ask(self, text: str, preset: str) -> AsyncIterator[Talk]:
        """Send a message. The conversation as it grows; closing this only stops to read."""
        self.values |= {self.box: text, self.parts["preset"]["id"]: preset}
        async with aclosing(self._call(self.reply, self.box)) as steps:
            async for values in steps:
                self.values[self.transcript] = values[0]
                yield values[0]["messages"]

    async def stop(self) -> None:
        """Press the button."""
        ids = {"fn_index": self.reply["id"], "event_id": self.event, "session_hash": self.session}
        await self.http.post("/gradio_api/cancel", json=ids)

    async def rest(self) -> None:
        """What the page calls after a reply, stopped or not."""
        async for values in self._call(self.settle, None):
            if "messages" in values[0]:
                self.values[self.transcript] = values[0]

    async def _call(self, function: dict[str, Any], part: int | None) -> AsyncIterator[list[Any]]:
        data = [self.values[part] for part in function["inputs"]]
        body = {"data": data, "fn_index": function["id"], "session_hash": self.session}
        joined = await self.http.post("/gradio_api/queue/join", json=body | {"trigger_id": part})
        joined.raise_for_status()
        self.event, values = joined.json()["event_id"], None
        where = {"session_hash": self.session}
        async with self.http.stream("GET", "/gradio_api/queue/data", params=where) as stream:
            async for line in stream.aiter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("event_id") != self.event:
                    continue
                output, ended = message.get("output") or {}, message["msg"] == "process_completed"
                if ended and not message["success"]:
                    raise RuntimeError(f"the page failed: {output}")
                if message["msg"] == "process_generating" or (ended and values is None):
                    new = output.get("data") or [{}]
                    values = new if values is None else list(map(apply_diff, values, new))
                    yield values
                if ended:
                    return

    async def _beat(self) -> None:
        """The connection by which a server knows that a tab is open."""
        with suppress(httpx.TransportError):
            async with self.http.stream("GET", f"/gradio_api/heartbeat/{self.session}") as stream:
                async for _ in stream.aiter_bytes():
                    pass


class User:
    """Somebody with a word of their own, who talks until the time is up."""

    def __init__(self, number: int, config: dict[str, Any], http: httpx.AsyncClient, is_api: bool):
        self.word = f"qx{chr(97 + number // 26)}{chr(97 + number % 26)}vk"
        self.opening = OPENINGS[number % len(OPENINGS)].format(self.word)
        self.config, self.http, self.is_api = config, http, is_api
        self.chance, self.alone = random.Random(number), ""
        self.tab = None if is_api else Tab(http, config)

    async def talk(self, until: float, pause: float, found: Findings) -> None:
        """Conversations of four messages, one after the other."""
        while time.perf_counter() < until:
            try:
                await self._conversation(until, pause, found)
            except Exception as error:
                found.errors[f"{type(error).__name__}: {str(error)[:100]}"] += 1

    async def first_reply(self, found: Findings) -> None:
        """The opening, while nobody else is there."""
        self.alone = (await self._answer([], self.opening, "greedy", found))[-1]["content"]

    async def _conversation(self, until: float, pause: float, found: Findings) -> None:
        messages: Talk = []
        if self.tab:
            self.tab.values[self.tab.transcript] = None
        for turn in range(4):
            await asyncio.sleep(pause * self.chance.uniform(0.5, 1.5))
            if time.perf_counter() > until:
                return
            text = self.chance.choice(MORE).format(self.word) if turn else self.opening
            chances = [*ACTS.values(), 1 - sum(ACTS.values())] if turn else [0, 0, 0, 1]
            act = self.chance.choices([*ACTS, ""], chances)[0]
            preset = "lively" if turn else "greedy"
            messages = await self._answer(messages, text, preset, found, act)
            found.done[act or ("program" if self.is_api else "page")] += 1
            if not turn and messages[-1]["content"] != self.alone:
                found.errors["a reply is not the one that was given alone"] += 1
            if act == "closed":
                return

    async def _answer(
        self, messages: Talk, text: str, preset: str, found: Findings, act: str = ""
    ) -> Talk:
        """The conversation after one more message, at each step checked to be this user's own."""
        began, come = time.perf_counter(), False
        before = [*messages, {"role": "user", "content": text}]
        stream = self._program(before, preset) if self.is_api else self.tab.ask(text, preset)
        now = before
        async for now in stream:
            others = set(re.findall(r"qx..vk", json.dumps(now))) - {self.word}
            if others or now[: len(before)] != before:
                found.errors["a conversation holds what is not its own"] += 1
            if not come and len(now) > len(before):
                found.first.append(time.perf_counter() - began)
                come = True
            if act and come:
                break
        await self._end(act, stream)
        found.replies += 1
        return now

    async def _end(self, act: str, stream: Any) -> None:
        """After the reply, or in the middle of one."""
        if not self.tab:
            return await stream.aclose()
        if act == "stopped":
            await self.tab.stop()
        await stream.aclose()
        if act in ("closed", "reloaded"):  # the browser has kept the conversation
            self.tab.heart.cancel()
            self.tab = Tab(self.http, self.config, self.tab.values[self.tab.transcript])
        else:
            await self.tab.rest()

    async def _program(self, messages: Talk, preset: str) -> AsyncIterator[Talk]:
        """A streamed reply from OpenAI's routes."""
        model, said = f"{self.config['name']}:{preset}", ""
        body = {"model": model, "messages": messages, "stream": True}
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                event = json.loads(line[6:]) if line.startswith("data: {") else {}
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                if event and (new := event["choices"][0]["delta"].get("content")):
                    said += new
                    yield [*messages, {"role": "assistant", "content": said}]


@contextmanager
def server(models: Sequence[Path]) -> Iterator[tuple[str, psutil.Process]]:
    """`chatbot serve` in a process of its own; its address."""
    call = [sys.executable, "-m", "chatbot", "serve", "--no-browser", *map(str, models)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = (re.search(r"http://\S+", line) for line in process.stdout)
            yield next(where[0] for where in found if where), psutil.Process(process.pid)
        finally:
            process.terminate()


async def watch(process: psutil.Process, found: Findings) -> None:
    """The server's memory, each second."""
    while True:
        found.memory.append((found.replies, process.memory_info().rss / 1e6))
        await asyncio.sleep(1)


async def load(options: argparse.Namespace, address: str, process: psutil.Process) -> bool:
    """Everybody alone, then all at once. Whether nothing went wrong."""
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=unlimited) as http:
        config = (await http.get("/config")).json()
        config["name"] = (await http.get("/v1/models")).json()["data"][0]["id"]
        users = [User(n, config, http, n % 5 == 4) for n in range(options.users)]
        alone, crowd = Findings(), Findings()
        for user in users:
            await user.first_reply(alone)
        watching = asyncio.create_task(watch(process, crowd))
        until = time.perf_counter() + 60 * options.minutes
        await asyncio.gather(*(user.talk(until, options.pause, crowd) for user in users))
        watching.cancel()
        for user in users:
            if user.tab:
                user.tab.heart.cancel()
    return report(options, alone, crowd)


def report(options: argparse.Namespace, alone: Findings, crowd: Findings) -> bool:
    """Print what was found."""
    errors = alone.errors + crowd.errors
    done = ", ".join(f"{count} {act}" for act, count in crowd.done.most_common())
    said = f"{options.users} users, {options.minutes:g} minutes, pauses of {options.pause:g} s"
    print(f"{said}: {crowd.replies} replies ({done})")
    print(f"errors: {errors.total()}", *(f"{n} × {what}" for what, n in errors.items()), sep="\n  ")
    one, many = np.quantile(alone.first, 0.95), np.quantile(crowd.first, 0.95)
    ratio = f"{many / one:.1f} times one user's {one:.2f} s"
    print(f"first token: p95 {many:.2f} s, {ratio} (median {np.median(crowd.first):.2f} s)")
    replies, megabytes = np.array(crowd.memory).T
    late, rise = replies >= WARM_UP, "too few replies for its rise"
    if late.sum() > 10:
        slope = 1000 * np.polyfit(replies[late], megabytes[late], 1)[0]
        rise = f"{slope:+.2f} MB per 1,000 replies after {WARM_UP}"
    print(f"memory: {megabytes[-1]:.0f} MB, {rise}")
    return not errors


def main() -> None:
    """Parse, call."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, help="folders of models; else the shipped")
    parser.add_argument("--users", type=int, default=50, help="at once (50)")
    parser.add_argument("--minutes", type=float, default=5, help="that they talk (5)")
    parser.add_argument("--pause", type=float, default=2, help="seconds before a message (2)")
    parser.add_argument("--quick", action="store_true", help="6 users, 4 seconds, hardly a pause")
    options = parser.parse_args()
    if options.quick:
        options.users, options.minutes, options.pause = 6, 4 / 60, 0.1
    with server(options.models) as (address, process):
        sys.exit(not asyncio.run(load(options, address, process)))


if __name__ == "__main__":
    main()
