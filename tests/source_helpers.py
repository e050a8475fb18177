"""Writing sources and reading them back as short lists."""

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

from chatbot.data.sources import SourceOptions, find_sources, read_source

SHORT = {"user": "u", "assistant": "b"}


def write(path: Path, content: str | bytes) -> Path:
    """A file, packed where its name says so."""
    content = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(*sources: Path | str, skipped: Counter[str] | None = None, **options: Any) -> list[str]:
    """Each dialogue as one text: `u: hi | b: hello`."""
    settings = SourceOptions(**options)
    return [
        " | ".join(f"{SHORT[m['role']]}: {m['content']}" for m in dialogue["messages"])
        for file in find_sources(sources, settings)
        for _, dialogue in read_source(file, settings, skipped)
    ]


def formats(*sources: Path | str) -> list[str]:
    """What the files are taken for."""
    return [file.format for file in find_sources(sources)]
