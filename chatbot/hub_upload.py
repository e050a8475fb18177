"""Files to a repository of the Hub: permission first, then one commit of everything, or none.

The client repeats the requests of an upload that fail in passing, but not those that ask who we
are, make a repository, check a card or commit: those are repeated here.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from json import JSONDecodeError
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, TypeVar

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, get_session
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from chatbot.hub_download import MODEL_FILES, digest

PASSING = (408, 429, 500, 502, 503, 504)
CONFLICT = (409, 412)
CARD = "README.md"
PART = re.compile(r"<!-- chatbot:(\w+) -->\n.*?<!-- /chatbot:\1 -->", re.DOTALL)
MEASURED = ("model-index", "sdk_version", "python_version", "models")  # of the metadata, ours
Files = Mapping[str, Path | bytes]  # what is sent, by its path in the repository
T = TypeVar("T")


class HubError(OSError):
    """Nothing was published, and why."""


class Remote(NamedTuple):
    """A commit, and what `digest` gives for each of its files."""

    commit: str
    digests: dict[str, str]


@dataclass(frozen=True)
class Target:
    """Where to. `kind` is model, dataset or space; the rest is as of `chatbot.hub.push_chatbot`.

    Args:
        waits: Seconds before the second, third and fourth try.
        silence: Seconds without an answer after which a request counts as failed.
    """

    repo_id: str
    kind: str = "model"
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    token: str | None = None
    waits: Sequence[float] = (1.0, 5.0, 25.0)
    silence: float = 120.0

    def __post_init__(self) -> None:
        if self.repo_id.count("/") != 1:
            raise ValueError(f"{self.repo_id!r} is no name on the Hub; allowed: owner/name.")
        if self.create_pr and self.revision:
            raise ValueError(f"revision={self.revision!r} is not possible with create_pr.")

    @property
    def api(self) -> HfApi:
        return HfApi(token=self.token)

    @property
    def where(self) -> dict[str, Any]:
        return {"repo_id": self.repo_id, "repo_type": self.kind}

    @property
    def name(self) -> str:
        return self.repo_id if self.kind == "model" else f"{self.kind} {self.repo_id}"

    @property
    def address(self) -> str:
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        branch = f"/tree/{self.revision}" if self.revision else ""
        return f"{self.api.endpoint}/{prefix}{self.repo_id}{branch}"

    def insist(self, call: Callable[..., T], **options: Any) -> T:
        """Call the client, again where it fails in passing."""
        for wait in (*self.waits, None):
            # the client itself would wait for ever; it is made anew when a connection fails
            get_session().timeout = self.silence
            try:
                return call(**options)
            except Exception as error:
                if wait is None or not is_passing(error):
                    raise
                rest(error, wait)
        raise AssertionError("the last try returns or raises")


def status_of(error: BaseException | None) -> int | None:
    """The status that an error is about. Uploads hide theirs in a cause."""
    if isinstance(error, HfHubHTTPError):
        return int(error.response.status_code)
    return None if error is None else status_of(error.__cause__)


def is_passing(error: BaseException | None) -> bool:
    """Whether the same request may go well a little later."""
    if error is None or status_of(error) is not None:
        return status_of(error) in PASSING
    # of an answer about a card the client reads the JSON before it looks at the status
    return isinstance(error, HTTPError | JSONDecodeError) or is_passing(error.__cause__)


def rest(error: Exception, wait: float) -> None:
    """Wait, and as long as the Hub asks for, up to a minute."""
    if isinstance(error, HfHubHTTPError):
        asked = error.response.headers.get("Retry-After", "")
        wait = max(wait, min(60.0, float(asked))) if asked.isdigit() else wait
    print(f"That failed ({_words(error)[:100]}); again in {wait:g} s")
    Event().wait(wait)


def check_permission(target: Target) -> bool:
    """Whether the repository exists already.

    Raises:
        HubError: There is no token, or it may not write there, or `private` cannot be kept.
    """
    try:
        user = target.insist(target.api.whoami)
        target.insist(target.api.auth_check, **target.where, write=not target.create_pr)
        info = target.insist(target.api.repo_info, **target.where, timeout=target.silence)
    except LocalTokenNotFoundError as error:
        raise HubError("no token: `hf auth login` keeps one, HF_TOKEN names one") from error
    except RepositoryNotFoundError as error:
        owners = [user["name"], *(org["name"] for org in user["orgs"])]
        if target.repo_id.split("/")[0] not in owners:
            allowed = ", ".join(f"{owner}/..." for owner in owners)
            raise HubError(f"{target.repo_id} is not yours to make; allowed: {allowed}") from error
        # a login through the browser has no access token, and may write
        if user["auth"].get("accessToken", {}).get("role") == "read":
            raise HubError("the token may only read: make one that may write") from error
        return False
    except Exception as error:
        raise _error(target, error) from error
    if target.private and not info.private:
        raise HubError(f"{target.repo_id} is public already, so --private keeps nothing private")
    return True


def look(target: Target, revision: str | None = None) -> Remote:
    """What the repository holds now."""
    options: Any = {"revision": revision or target.revision, "timeout": target.silence}
    info: Any = target.insist(target.api.repo_info, **target.where, **options, files_metadata=True)
    digests = {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id for f in info.siblings}
    return Remote(info.sha, digests)


def merged_card(target: Target, files: Files, remote: Remote | None) -> bytes:
    """Our card and theirs in one."""
    theirs, ours = None, files[CARD]
    if remote is not None and CARD in remote.digests:
        options = {**target.where, "revision": remote.commit}
        found = target.insist(target.api.hf_hub_download, filename=CARD, **options)
        theirs = Path(found).read_text("utf-8")
    text = ours if isinstance(ours, bytes) else ours.read_bytes()
    return merge_cards(text.decode("utf-8"), theirs).encode("utf-8")


def merge_cards(ours: str, theirs: str | None, only: Collection[str] = ()) -> str:
    """Their card with our parts where they have them; ours alone where there is none.

    Of the metadata theirs stays, but for what is measured. A card without any of our parts is kept
    whole, and ours follow it. `only`: the parts that are replaced, if not all.
    """
    if theirs is None:
        return ours
    mine, kept = RepoCard(ours), RepoCard(theirs)
    before, after = mine.data.to_dict(), kept.data.to_dict()
    metadata = {**before, **after, **{n: before[n] for n in MEASURED if n in before}}
    parts = {m[1]: m[0] for m in PART.finditer(mine.text) if not only or m[1] in only}
    body = PART.sub(lambda match: parts.get(match[1], match[0]), kept.text)
    if parts and not PART.search(body):
        body += "\n" + mine.text
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{body}"


def preview(target: Target, exists: bool, files: Files) -> None:
    """Print what would be sent, once the Hub finds nothing wrong with its card.

    Raises:
        HubError, ValueError: The Hub cannot be reached; or its complaints about the card.
    """
    try:
        remote = look(target) if exists else None
    except RevisionNotFoundError:
        remote = None
    except Exception as error:
        raise _error(target, error) from error
    try:
        card = RepoCard(merged_card(target, files, remote).decode("utf-8"))
        target.insist(card.validate, repo_type=target.kind)
    except Exception as error:
        if type(error) is ValueError:  # what the Hub says of the card
            raise
        raise _error(target, error) from error
    sizes = {path: file.stat().st_size for path, file in files.items() if isinstance(file, Path)}
    print(f"{target.repo_id} ({target.kind}): {len(files)} files, {sum(sizes.values()):,} bytes")
    print(*(f"  {path}  {size:,}" for path, size in sizes.items()), sep="\n")


def upload(target: Target, exists: bool, files: Files) -> str:
    """Send files in one commit, and see that they arrived. Returns the address to look at.

    Files of a model that are there and not among these are deleted: old shards would be loaded.

    Raises:
        HubError: It could not be done; the repository is as it was, or new and empty.
    """
    try:
        if not exists:
            options: dict[str, Any] = {"private": target.private, "exist_ok": True}
            options |= {"space_sdk": "gradio"} if target.kind == "space" else {}
            target.insist(target.api.create_repo, **target.where, **options)
        if target.revision:
            options = {"branch": target.revision, "exist_ok": True}
            target.insist(target.api.create_branch, **target.where, **options)
        address = _commit(target, files)
    except Exception as error:
        held = "holds what it held before" if exists else "is empty, if it was made"
        state = f"; {target.name} {held}. Pushing again completes it."
        raise _error(target, error, state) from error
    print(f"{'Proposed' if target.create_pr else 'Published'}: {address}")
    return address


def _commit(target: Target, files: Files) -> str:
    """Look, commit on what was seen, look again: an answer that got lost does no harm."""
    remote = look(target)
    for wait in (*target.waits, None):
        sent = {**files, CARD: merged_card(target, files, remote)}
        try:
            return _send(target, sent, remote)
        except Exception as error:
            if wait is None or not (is_passing(error) or status_of(error) in CONFLICT):
                raise
            rest(error, wait)
        before, remote = remote, look(target)
        if before != remote and _arrived(sent, remote):
            return target.address
        # what else was committed meanwhile may stay, and the card is merged anew
        changed = {p for p in files if before.digests.get(p) != remote.digests.get(p)} - {CARD}
        if changed:
            raise HubError(f"nothing was published: {sorted(changed)} changed there meanwhile")
    raise AssertionError("the last try returns or raises")


def _send(target: Target, sent: Files, remote: Remote) -> str:
    def is_stale(path: str) -> bool:
        return path not in sent and any(fnmatch(path, pattern) for pattern in MODEL_FILES)

    additions = [CommitOperationAdd(path, content) for path, content in sent.items()]
    stale = [p for p in remote.digests if is_stale(p)] if target.kind == "model" else []
    done = replace(target, waits=()).insist(
        target.api.create_commit,
        **target.where,
        operations=[*additions, *map(CommitOperationDelete, stale)],
        revision=target.revision,
        create_pr=target.create_pr,
        parent_commit=remote.commit,
        commit_message=f"Upload {target.kind}",
    )
    try:
        complete = _arrived(sent, look(target, done.oid))
    except Exception as error:
        raise HubError(f"commit {done.oid} cannot be looked at ({_words(error)})") from error
    if not complete:
        raise HubError(f"commit {done.oid} does not hold all files: push again")
    return done.pr_url or target.address


def _arrived(sent: Files, remote: Remote) -> bool:
    found = remote.digests
    return all(p in found and digest(of, like=found[p]) == found[p] for p, of in sent.items())


def _error(target: Target, error: BaseException, state: str = "") -> HubError:
    if isinstance(error, HubError):
        return error
    reason = _words(error)
    if status_of(error) in (401, 403):
        reason = f"the token may not do that: make one that may write ({reason})"
    return HubError(f"{target.name}: nothing was published: {reason}{state}")


def _words(error: BaseException) -> str:
    return " ".join(str(error.__cause__ or error).split())
