"""A Hub on loopback: repositories, large files, commits and tokens over real HTTP, with faults.

It knows nothing of this package. Tests look at `repos` and `requests`, and break some with `fail`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from hub_store import Files, Repo, User, entry, faults_of_card, git_oid, is_large, sibling


@dataclass
class Fault:
    """What happens to the request of this number, or that holds this text.

    `how`: a status; "cut" (no answer), "hang" (none ever), "lost" (done, then no answer), "corrupt"
    (a wrong byte), "newer" (somebody commits just before), "revoke" (the token may only read now).
    """

    at: int | str
    how: int | str
    always: bool = False
    hit: str | None = None
    with_file: str = "notes.md"

    def strikes(self, number: int, request: str) -> bool:
        if self.hit is not None:
            return self.always and self.hit == request
        return self.at == number if isinstance(self.at, int) else self.at in request


class Refused(Exception):  # noqa: N818  (an answer, not an error of ours)
    """Status, message and, for some, the code that the client goes by."""


class HubServer:
    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock, self.closing = threading.RLock(), threading.Event()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads, self.http.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def fail(self, at: int | str, how: int | str, **options: Any) -> None:
        """From now on numbers count from 0, and only this fault is there."""
        self.calm()
        self.faults = [Fault(at, how, **options)]

    def calm(self) -> None:
        self.requests, self.faults = [], []

    def files(self, repo_id: str, kind: str = "model", revision: str = "main") -> Files:
        repo = self.repos[kind, repo_id]
        return repo.commits[repo.find(revision) or ""]

    def edit(self, repo_id: str, path: str, content: bytes, kind: str = "model") -> str:
        """A commit of somebody else."""
        repo = self.repos[kind, repo_id]
        return repo.commit("main", {**self.files(repo_id, kind), path: content})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait until the client acknowledged its head
    hub: HubServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        url, hub = urlsplit(self.path), self.hub
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {unquote(url.path)}"
        with hub.lock:
            number, fault = len(hub.requests), None
            hub.requests.append(request)
            for known in hub.faults:
                if known.strikes(number, request):
                    fault, known.hit = known, request
        how = fault.how if fault else None
        if how in ("hang", "cut"):
            self.close_connection = how == "cut" or hub.closing.wait()
            return
        if isinstance(how, int):
            return self._answer(how, {"error": "this request was broken on purpose"})
        with hub.lock:
            for kind, repo_id in list(hub.repos) if fault and how == "newer" else []:
                hub.edit(repo_id, fault.with_file, f"{number}".encode(), kind)
            for user in hub.users.values() if how == "revoke" else []:
                user.role = "read"
            self._route(unquote(url.path), body, how)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _route(self, path: str, body: bytes, how: int | str | None) -> None:
        try:
            for pattern, name in ROUTES:
                if match := re.fullmatch(pattern, f"{self.command} {path}"):
                    answer = getattr(self, name)(body, **match.groupdict())
                    break
            else:
                raise Refused(404, f"no such page: {path}")
        except Refused as refused:
            status, message, code = (*refused.args, None)[:3]
            errors = [{"message": line} for line in message.split("\n")]
            headers = {"X_Error_Code": code} if code else {}
            answer = (status, {"error": message, "errors": errors}, headers)
        if how == "lost":
            self.close_connection = True
            return
        status, content, headers = (*answer, {})[:3]
        if how == "corrupt" and isinstance(content, bytes):
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._answer(status, content, **headers)

    def _user(self) -> User | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _repo(self, kind: str, repo_id: str, *, write: bool = False) -> Repo:
        """A repository that the token may see."""
        kind = kind.rstrip("s") or "model"
        repo, user = self.hub.repos.get((kind, repo_id)), self._user()
        if repo is None or (repo.private and not (user and user.owns(repo_id))):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not (user and user.may_write(repo_id)):
            raise Refused(403, "You need write access to this repository")
        return repo

    def _commit(self, repo: Repo, revision: str) -> str:
        if (oid := repo.find(revision)) is None:
            raise Refused(404, "Invalid rev id", "RevisionNotFound")
        return oid

    def device(self, body: bytes) -> Any:
        page = f"{self.hub.url}/oauth/allow"
        code = {"device_code": "d", "user_code": "ABCD", "verification_uri": page}
        return 200, {**code, "expires_in": 900, "interval": 0}

    def token(self, body: bytes) -> Any:
        """Somebody has allowed it in the browser meanwhile."""
        tokens = [token for token, user in self.hub.users.items() if user.role == "oauth"]
        return 200, {"access_token": tokens[0], "token_type": "bearer"}

    def whoami(self, body: bytes) -> Any:
        if (user := self._user()) is None:
            raise Refused(401, "Invalid username or password.")
        orgs = [{"name": name, "roleInOrg": "write"} for name in user.orgs]
        auth: Any = {"type": "access_token", "accessToken": {"displayName": "x", "role": user.role}}
        if user.role == "oauth":
            auth = {"type": "oauth"}
        return 200, {"type": "user", "name": user.name, "orgs": orgs, "auth": auth}

    def create(self, body: bytes) -> Any:
        asked, user = json.loads(body), self._user()
        owner = asked.get("organization") or (user.name if user else "")
        kind, repo_id = asked.get("type", "model"), f"{owner}/{asked['name']}"
        if not (user and user.may_write(repo_id)):
            raise Refused(403, f"You don't have the rights to create a {kind} under {owner}")
        prefix = "" if kind == "model" else f"{kind}s/"
        found = {"url": f"{self.hub.url}/{prefix}{repo_id}"}
        if (kind, repo_id) in self.hub.repos:
            return 409, found | {"error": "You already created this repo"}
        repo = Repo(asked.get("visibility") == "private" or bool(asked.get("private")))
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.hub.repos[kind, repo_id] = repo
        return 200, found

    def auth_check(self, body: bytes, kind: str, repo_id: str, write: str | None) -> Any:
        self._repo(kind, repo_id, write=bool(write))
        return 200, {}

    def info(self, body: bytes, kind: str, repo_id: str, revision: str | None) -> Any:
        repo = self._repo(kind, repo_id)
        oid = self._commit(repo, revision or "main")
        files = [sibling(*item, "blobs" in self.query) for item in repo.commits[oid].items()]
        about = {"tags": [], "downloads": 0, "likes": 0, "gated": False, "disabled": False}
        return 200, about | {"id": repo_id, "sha": oid, "private": repo.private, "siblings": files}

    def refs(self, body: bytes, kind: str, repo_id: str) -> Any:
        found = self._repo(kind, repo_id).refs.items()
        heads = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid} for n, oid in found]
        return 200, {"branches": heads, "tags": [], "converts": []}

    def branch(self, body: bytes, kind: str, repo_id: str, revision: str) -> Any:
        repo = self._repo(kind, repo_id, write=True)
        if revision in repo.refs:
            raise Refused(409, "Reference already exists")
        repo.refs[revision] = repo.refs["main"]
        return 200, {}

    def tree(self, body: bytes, kind: str, repo_id: str, revision: str, path: str | None) -> Any:
        repo, folder = self._repo(kind, repo_id), f"{path.strip('/')}/" if path else ""
        found = repo.commits[self._commit(repo, revision)]
        inside = {p: c for p, c in found.items() if p.startswith(folder)}
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        entries = [entry(p, c) for p, c in inside.items()]
        if self.query.get("recursive", "").lower() != "true":
            deeper = {p[len(folder) :].split("/")[0] for p in inside if "/" in p[len(folder) :]}
            entries = [e for e in entries if "/" not in e["path"][len(folder) :]]
            entries += [
                {"type": "directory", "path": folder + name, "oid": "0" * 40, "size": 0}
                for name in sorted(deeper)
            ]
        return 200, entries

    def paths_info(self, body: bytes, kind: str, repo_id: str, revision: str) -> Any:
        repo = self._repo(kind, repo_id)
        found = repo.commits[self._commit(repo, revision)]
        return 200, [entry(p, found[p]) for p in json.loads(body)["paths"] if p in found]

    def preupload(self, body: bytes, kind: str, repo_id: str, revision: str) -> Any:
        repo = self._repo(kind, repo_id, write="create_pr" not in self.query)
        found = repo.commits[self._commit(repo, revision)]
        files = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            mode = "lfs" if is_large(path, asked["size"]) else "regular"
            known = entry(path, found[path]) if path in found else {}
            oid = known.get("lfs", known).get("oid")
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": files}

    def batch(self, body: bytes, kind: str | None, repo_id: str) -> Any:
        self._repo(kind or "models", repo_id)
        objects = []
        for asked in json.loads(body)["objects"]:
            actions = {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}}
            objects.append(asked | ({} if asked["oid"] in self.hub.objects else actions))
        return 200, {"transfer": "basic", "objects": objects}

    def store(self, body: bytes, oid: str) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "the content has another SHA-256")
        self.hub.objects[oid] = body
        return 200, {}

    def commit(self, body: bytes, kind: str, repo_id: str, revision: str) -> Any:
        pull = "create_pr" in self.query
        repo = self._repo(kind, repo_id, write=not pull)
        head = self._commit(repo, revision)
        files, lines = dict(repo.commits[head]), [json.loads(line) for line in body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, head) and not pull:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value, path = line["value"], line["value"]["path"]
            if line["key"] == "file":
                files[path] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in self.hub.objects:
                files[path] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile" and path in files:
                del files[path]
            else:
                raise Refused(400, f"{line['key']} {path} is not possible")
        number = sum(ref.startswith("refs/pr/") for ref in repo.refs) + 1
        oid = repo.commit(f"refs/pr/{number}" if pull else revision, files)
        base = f"{self.hub.url}/{repo_id}"
        urls = {
            "commitUrl": f"{base}/commit/{oid}",
            "pullRequestUrl": f"{base}/discussions/{number}",
        }
        return 200, {"commitOid": oid, **urls}

    def validate(self, body: bytes) -> Any:
        asked = json.loads(body)
        if wrong := faults_of_card(asked["content"], asked["repoType"]):
            raise Refused(400, "\n".join(wrong))
        return 200, {"errors": [], "warnings": []}

    def resolve(self, body: bytes, kind: str | None, repo_id: str, revision: str, path: str) -> Any:
        repo = self._repo(kind or "models", repo_id)
        oid = self._commit(repo, revision)
        headers = {"X_Repo_Commit": oid, "Accept_Ranges": "bytes"}
        if path not in repo.commits[oid]:
            return 404, b"", headers | {"X_Error_Code": "EntryNotFound"}
        content = repo.commits[oid][path]
        large = entry(path, content).get("lfs")
        if large:
            headers |= {"X_Linked_Etag": f'"{large["oid"]}"', "X_Linked_Size": str(len(content))}
        headers["ETag"] = f'"{git_oid(content)}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return 200, content, headers
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
        return 206, content[first : last + 1], headers


REPO = r"(?P<repo_id>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>models|datasets|spaces)/{REPO}"
PAGE = rf"/(?:(?P<kind>datasets|spaces)/)?{REPO}"
REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"
ROUTES = [
    (r"POST /oauth/device", "device"),
    (r"POST /oauth/token", "token"),
    (r"GET /api/whoami-v2", "whoami"),
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"GET {API}/auth-check(?P<write>/write)?", "auth_check"),
    (rf"GET {API}/refs", "refs"),
    (rf"GET {API}(?:/revision/{REVISION})?", "info"),
    (rf"GET {API}/tree/{REVISION}(?P<path>/.*)?", "tree"),
    (rf"POST {API}/paths-info/{REVISION}", "paths_info"),
    (rf"POST {API}/preupload/{REVISION}", "preupload"),
    (rf"POST {API}/commit/{REVISION}", "commit"),
    (rf"POST {API}/branch/{REVISION}", "branch"),
    (rf"POST {PAGE}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /lfs/(?P<oid>\w+)", "store"),
    (rf"(?:GET|HEAD) {PAGE}/resolve/{REVISION}/(?P<path>.+)", "resolve"),
]
