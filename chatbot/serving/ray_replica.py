"""The engine and its routes behind Ray Serve: replicas in processes of their own, on any machine.

Each is what one server is alone: an engine, and the routes of `openai.py` with all their checks. A
reply lives and dies with its replica; `client.py` asks again for what was not answered.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from typing import Any

from chatbot.serving.guard import LOOPBACK

# Ray reads these when it is imported. The second, named for other systems, keeps the ports between
# the processes of this computer on 127.0.0.1.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
try:
    import ray
    from ray import serve
except ImportError as error:
    raise ImportError("Ray is missing: pip install 'rnn-seq2seq-chatbot[ray]'") from error

LOCAL = "local"
SLOTS, WAITING = 64, 256  # of a replica; all who wait stand before the first that is free
STORE_BYTES = 100_000_000  # of shared memory: replies do not go through it


@serve.ingress()
class Replica:
    """A model and its routes, loaded where the replica runs.

    Args:
        name: What the model is called.
        folder: Of the model. None: the shipped one.
        options: As of `create_app`.
    """

    def __init__(self, name: str, folder: Path | None, options: dict[str, Any]):
        from chatbot.checkpoints import load_chatbot
        from chatbot.serving.engine import Engine

        self.engines, self.options = {name: Engine(*load_chatbot(folder), SLOTS)}, options

    def __serve_build_asgi_app__(self) -> Any:
        from chatbot.serving.openai import create_app

        return create_app(self.engines, **self.options)


@contextmanager
def serving(
    folder: Path | None = None,
    *,
    replicas: int = 2,
    host: str = LOOPBACK[0],
    port: int = 8000,
    cluster: str = LOCAL,
    api_key: str | None = None,
    **options: Any,
) -> Iterator[str]:
    """Replicas behind one address, which is given; they end with the context.

    Args:
        folder: Of a model, which goes by the folder's name. None: the shipped one.
        replicas: How many; each takes a core.
        host, port: Where to listen. An address that others can reach needs a key.
        cluster: Address of one (`auto`: the one that runs here) whose machines all have the package
            and the folder. `local`: processes on this computer.
        api_key, options: As of `create_app`.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: The port is taken, or the model cannot be loaded.
        ValueError: No replicas, or no key where one is needed.
    """
    if replicas < 1:
        raise ValueError(f"replicas={replicas!r} is not possible; allowed: 1 or more.")
    if host not in LOOPBACK and not api_key:
        raise ValueError(f"host={host!r} lets others in; needed: api_key.")
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such model folder.")
    folder = folder and folder.absolute()
    name = folder.name if folder else "Wren"
    options |= {"api_key": api_key, "hosts": LOOPBACK if host in LOOPBACK else None}
    waiting = {"max_ongoing_requests": SLOTS, "max_queued_requests": WAITING}
    deployed = serve.deployment(num_replicas=replicas, **waiting)
    own: dict[str, Any] = {}
    if cluster == LOCAL:
        own = {"num_cpus": replicas, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()  # else Ray writes one to the home folder
    ray.init(cluster, log_to_driver=False, **own)
    try:
        serve.start(http_options={"host": host, "port": port})
        serve.run(deployed(Replica).bind(name, folder, options))
        _wait_for_routes(host, port)
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    finally:
        serve.shutdown()
        ray.shutdown()


def _wait_for_routes(host: str, port: int) -> None:
    """Ray calls an application ready before its proxy knows it, which says 404 until then."""
    pause = Event()
    while True:
        with closing(HTTPConnection(host, port)) as connection:
            connection.request("GET", "/-/routes")
            answer = connection.getresponse()
            if answer.status == 200 and json.load(answer):
                return
        pause.wait(0.1)
