"""Chat in the browser: `chatbot serve` under another name. With --engine ray OpenAI's routes alone.

    python scripts/serve.py
    python scripts/serve.py runs/mine/model --port 8000 --no-browser
    python scripts/serve.py --engine ray --replicas 2
    python scripts/serve.py --engine ray runs/mine/model --cluster auto --host 0.0.0.0 --api-key KEY

`--help` lists the options, `--engine ray --help` those with Ray (extra [ray], docs/serving.md).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from chatbot.cli import main


def parser() -> argparse.ArgumentParser:
    """Options of `--engine ray`."""
    parser = argparse.ArgumentParser(description="Serve OpenAI's routes by Ray Serve.")
    add, key = parser.add_argument, os.environ.get("CHATBOT_API_KEY")
    add("--engine", choices=["ray"], required=True)
    add("model", nargs="?", type=Path, help="folder of a model (the shipped one)")
    add("--replicas", type=int, default=2, help="processes that answer, each on a core (2)")
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=int, default=8000, help="port to listen on (8000)")
    add("--cluster", default="local", help="address of a cluster of Ray, or auto (local: none)")
    add("--api-key", default=key, metavar="KEY", help="what clients must show (CHATBOT_API_KEY)")
    add("--no-safety", action="store_true", help="check neither messages nor replies")
    return parser


def serve_by_ray(arguments: Sequence[str]) -> int:
    """Answer until Ctrl-C. Returns the exit status: 2 for bad input, which is said in one line."""
    options = parser().parse_args(arguments)
    try:
        from chatbot.serving.ray_replica import serving

        with serving(
            options.model,
            replicas=options.replicas,
            host=options.host,
            port=options.port,
            cluster=options.cluster,
            api_key=options.api_key,
            safety=not options.no_safety,
        ) as url:
            print(f"{options.replicas} replicas answer at {url} (Ctrl-C ends them)", flush=True)
            Event().wait()
    except KeyboardInterrupt:
        return 0
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"serve.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    given = sys.argv[1:]
    by_ray = any(word.startswith("--engine") for word in given)
    sys.exit(serve_by_ray(given) if by_ray else main(["serve", *given]))
