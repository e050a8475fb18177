"""Models by their name on the Hub: fetched into the cache of `huggingface_hub`, and checked."""

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# All that a model is: nothing else is fetched from a repository, or sent to one as it lies there.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MODEL_FILES = (
    *("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"),
    "model-?????-of-?????.safetensors",
    *(folder + name for folder in ("", "target_tokenizer/") for name in TOKENIZER_FILES),
)
_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")


def is_hub_name(name: str) -> bool:
    """Whether it reads `owner/name` or `owner/name@revision`, and cannot be a mistyped path."""
    return _NAME.fullmatch(name) is not None and not Path(name.split("/")[0]).exists()


def download_model(name: str, revision: str | None = None, token: str | None = None) -> Path:
    """The folder in the cache with a model of the Hub; with HF_HUB_OFFLINE=1, as it is there.

    Args:
        name: `owner/name`, or with a branch, tag or commit: `owner/name@revision`.
        revision: The same, where the name has none.
        token: None: that of `hf auth login` or of HF_TOKEN.

    Raises:
        FileNotFoundError: The Hub has no such model, or not for this token; or it is not in the
            cache and the Hub cannot be reached.
        ValueError: A file does not have the sum that the Hub names, even when it is fetched again.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no model of the Hub; allowed: owner/name, owner/name@main.")
    repo_id, patterns, offline = match[1], list(MODEL_FILES), constants.HF_HUB_OFFLINE
    try:
        where: Any = {"revision": match[2] or revision, "token": token}
        folder = Path(snapshot_download(repo_id, allow_patterns=patterns, **where))
        where["revision"] = folder.name
        for file in [] if offline else damaged(folder):
            print(f"{repo_id}: {file} was damaged on its way; fetching it again", file=sys.stderr)
            hf_hub_download(repo_id, file, force_download=True, **where)
    except (HTTPError, LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, RepositoryNotFoundError):
            reason = "nor on the Hub, for you: a private one needs `hf auth login` or HF_TOKEN"
        elif isinstance(error, RevisionNotFoundError):
            reason = "the Hub has the model, but not that branch, tag or commit"
        elif offline:
            reason = "nor in the cache, and HF_HUB_OFFLINE=1 forbids to fetch it"
        raise FileNotFoundError(f"{name}: no such model folder; {reason}") from error
    if still := damaged(folder):
        again = "load it once without HF_HUB_OFFLINE" if offline else "the Hub's own copy is, too"
        raise ValueError(f"{name}: {', '.join(still)} in {folder} is damaged: {again}")
    return folder


def damaged(snapshot: Path) -> list[str]:
    """Files of a snapshot in the cache whose content is not what their blob is named after."""
    return [
        path.relative_to(snapshot).as_posix()
        for path in sorted(snapshot.rglob("*"))
        if path.is_symlink() and digest(path, like=(name := Path(os.readlink(path)).name)) != name
    ]


def digest(content: Path | bytes, like: str) -> str:
    """As the Hub names files: SHA-256 of large ones, the SHA-1 of git of the others."""
    content = content.read_bytes() if isinstance(content, Path) else content
    if len(like) == 64:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
