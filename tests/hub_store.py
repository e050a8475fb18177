"""What a Hub holds: users, repositories, files, and the rules for the head of a card."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

LARGE = (".safetensors", ".bin", ".parquet", ".arrow", ".png")
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
Files = dict[str, bytes]


@dataclass
class User:
    """`role`: "write", "read", or "oauth", as `hf auth login` through the browser gives."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def owns(self, repo_id: str) -> bool:
        return repo_id.split("/")[0] in (self.name, *self.orgs)

    def may_write(self, repo_id: str) -> bool:
        return self.owns(repo_id) and self.role != "read"


@dataclass
class Repo:
    """Commits by their id, and what branches and pull requests point at."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)

    def commit(self, ref: str, files: Files) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[oid], self.refs[ref] = files, oid
        return oid


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str, size: int) -> bool:
    return path.endswith(LARGE) or size > 10_000_000


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as `tree` and `paths-info` show it."""
    large = is_large(path, len(content))
    sha256 = hashlib.sha256(content).hexdigest()
    lfs = {"lfs": {"oid": sha256, "size": len(content), "pointerSize": 134}} if large else {}
    return {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": git_oid(sha256.encode() if large else content),
        **lfs,
    }


def sibling(path: str, content: bytes, blobs: bool) -> dict[str, Any]:
    """A file as the information on a repository shows it."""
    seen = entry(path, content)
    lfs = {"lfs": {**seen["lfs"], "sha256": seen["lfs"]["oid"]}} if "lfs" in seen else {}
    known = {"size": seen["size"], "blobId": seen["oid"], **lfs}
    return {"rfilename": path} | (known if blobs else {})


def faults_of_card(content: str, kind: str) -> list[str]:
    """What the Hub would complain about in the head of a README."""
    match = re.match(r"---\r?\n(.*?)\r?\n---", content, re.DOTALL)
    data = yaml.safe_load(match[1]) if match else {}
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    wrong = []
    if not isinstance(data.get("license", ""), str | list):
        wrong.append('"license" must be a string')
    for model in data.get("model-index") or []:
        for result in model["results"]:
            missing = {"task", "dataset", "metrics"} - result.keys()
            wrong += [f'"model-index.results.{name}" is required' for name in sorted(missing)]
            for metric in result.get("metrics", []):
                if not isinstance(metric.get("value"), int | float) or "type" not in metric:
                    wrong.append(f'"metrics" needs a type and a number: {metric}')
    if kind == "space":
        for name in ("sdk", "title", "emoji", "colorFrom", "colorTo", "app_file"):
            if name not in data:
                wrong.append(f'"{name}" is required')
        wrong += [f'"{n}" is no colour' for n in ("colorFrom", "colorTo") if data[n] not in COLORS]
        for name in ("sdk_version", "python_version"):
            if not isinstance(data.get(name), str):
                wrong.append(f'"{name}" must be a string')
        if len(data.get("short_description", "")) > 60:
            wrong.append('"short_description" is longer than 60 characters')
    return wrong
