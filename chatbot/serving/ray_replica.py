"""The engine and its routes behind Ray Serve: replicas in processes of their own, on any machine.

Each replica is what one server is alone: an engine, and the routes of `openai.py` with their checks.
A reply lives and dies with its replica; `client.py` sends again what was not answered.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chatbot.serving.guard import LOOPBACK

LOCAL = "local"  # Ray's own processes, for this computer alone
# Ray reads these when it is imported. The second, named for other systems, keeps the ports between
# its processes on 127.0.0.1: who reaches them can run anything.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
os.environ.update(QUIET)

import ray  # noqa: E402  (after the environment)
from fastapi import FastAPI  # noqa: E402
from ray import serve  # noqa: E402

SLOTS, WAITING = 64, 256
STORE_BYTES = 100_000_000  # of shared memory, which replies hardly touch


@serve.deployment(max_ongoing_requests=SLOTS, max_queued_requests=WAITING)
@serve.ingress()
class Replica:
    """A model, loaded where the replica runs.

    Args:
        name: That the model goes by in `/v1/models`.
        folder: Of the model, there. None: the shipped one.
        options: As of `create_app`.
    """

    def __init__(self, name: str, folder: str | None, options: dict[str, Any]):
        from chatbot.checkpoints import load_chatbot
        from chatbot.serving.engine import Engine

        self.options = options
        self.engines = {name: Engine(*load_chatbot(folder), SLOTS, WAITING)}

    def __serve_build_asgi_app__(self) -> FastAPI:
        from chatbot.serving.openai import create_app

        return create_app(self.engines, **self.options)


@contextmanager
def serving(
    name: str,
    folder: str | None,
    *,
    replicas: int = 2,
    host: str = LOOPBACK[0],
    port: int = 8000,
    cluster: str = LOCAL,
    **options: Any,
) -> Iterator[str]:
    """Replicas that answer at one address, which is yielded; leaving ends them.

    Args:
        replicas: How many; each takes a processor.
        cluster: Address of a running one (`auto`: that of this machine), where the package is
            installed and the folder lies on each machine. `local`: this computer alone.
        options: As of `create_app`.
    """
    options["hosts"] = LOOPBACK if host in LOOPBACK else None
    own = {"num_cpus": replicas, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    ray.init(cluster, log_to_driver=False, **(own if cluster == LOCAL else {}))
    try:
        serve.start(http_options={"host": host, "port": port})
        serve.run(Replica.options(num_replicas=replicas).bind(name, folder, options), name=name)
        yield f"http://{host}:{port}/v1"
    finally:
        serve.shutdown()
        ray.shutdown()
