"""A hub on this machine: serves folders as the Hugging Face hub does, and takes commits.

It answers huggingface_hub's own client: models and data sets and their files at each of their
commits, listing models by tag and words, and uploads in the two steps that the hub has, large files
first and then a commit that names them. What is gated, private or missing is answered as the hub
answers it.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.hf_api import api as shared_api
from transformers.utils.hub import hf_api

WEIGHTS = (".safetensors", ".bin")
LARGE = (*WEIGHTS, ".png")
"""What goes to the storage for large files."""
FRONT = re.compile(r"\A---\n(.*?)^---$", re.MULTILINE | re.DOTALL)
DATASETS = "datasets"
"""Before the name of every data set."""
PAST = ".past"
"""The folder with what repositories had at earlier commits."""
PLAIN_CARD = {"license": "apache-2.0", "language": ["ko"]}
"""Of a model without a card."""


@dataclass
class Hub:
    """What a hub has, and what it was asked for."""

    folder: Path
    """Has a folder `owner/name` for every model, and `datasets/owner/name` for every data set."""
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    accounts: dict[str, str] = field(default_factory=lambda: {"hf_me": "me"})
    """The owner of every token that may write."""
    trouble: int | None = None
    """It answers every question with this status, or with 0 hangs up."""
    breaks_after: int | None = None
    """So many large files are taken; then it hangs up, until this is None again."""
    bytes_per_second: int | None = None
    """Of a file; None for as fast as it goes."""
    address: str = ""
    requests: list[str] = field(default_factory=list)
    weight_bytes: int = 0
    """Sent of the files with weights."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files that have come, by their SHA-256."""
    received: list[str] = field(default_factory=list)
    """The SHA-256 of each large file that was sent here, in order."""
    begun: int = 0
    """How many large files somebody has begun to send."""
    lock: Any = field(default_factory=threading.Lock)
    commits: dict[str, int] = field(default_factory=dict)
    """How often each repository has changed."""

    def commit(self, repo: str) -> str:
        """Return the newest commit of a repository."""
        return self._commit(repo, self.commits.get(repo, 0))

    def _commit(self, repo: str, number: int) -> str:
        return sha1(f"{repo}#{number}".encode() if number else repo.encode()).hexdigest()

    def at(self, repo: str, revision: str) -> Path | None:
        """Return what a repository has at a revision; None without such a revision."""
        if revision in ("main", self.commit(repo)):
            return self.folder / repo
        numbers = range(self.commits.get(repo, 0))
        known = {self._commit(repo, n): self.folder / PAST / repo / str(n) for n in numbers}
        return known.get(revision)

    def change(self, repo: str, files: dict[str, bytes | None]) -> str:
        """Make a commit: files set, or with None removed; the earlier ones stay to be had."""
        number, folder = self.commits.get(repo, 0), self.folder / repo
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, self.folder / PAST / repo / str(number))
        for name, content in files.items():
            (folder / name).unlink(missing_ok=True)  # it may be a link
            if content is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        self.commits[repo] = number + 1
        return self.commit(repo)

    def card(self, repo: str) -> dict[str, Any]:
        """Return the metadata of a repository's card."""
        file = self.folder / repo / "README.md"
        front = FRONT.match(file.read_text(encoding="utf-8")) if file.is_file() else None
        return yaml.safe_load(front[1]) if front else PLAIN_CARD

    def tags(self, repo: str) -> list[str]:
        """Return a repository's tags: its card's, those of its parents, and whether it chats."""
        card = self.card(repo)
        parents = card.get("base_model") or []
        relation = card.get("base_model_relation", "finetune")
        tags = list(card.get("tags", []))
        for parent in [parents] if isinstance(parents, str) else parents:
            tags += [f"base_model:{parent}", f"base_model:{relation}:{parent}"]
        folder = self.folder / repo
        settings = folder / "tokenizer_config.json"
        template = (folder / "chat_template.jinja").is_file()
        if template or (settings.is_file() and "chat_template" in json.loads(settings.read_text())):
            tags.append("conversational")
        return tags

    def repositories(self) -> list[str]:
        """Return the names of all models."""
        folders = [f for f in self.folder.glob("*/*/") if f.parent.name != DATASETS and f.is_dir()]
        return sorted(f.relative_to(self.folder).as_posix() for f in folders)


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Hub]:
    """Serve a folder of models until the end of the block."""
    hub = Hub(folder, **settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def ask(hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let this process ask a hub in place of the real one, with an empty cache."""
    template = "/{repo_id}/resolve/{revision}/{filename}"
    for api in (hf_api(), shared_api):
        monkeypatch.setattr(api, "endpoint", hub.address)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files as Git LFS has them


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    # --- reading ------------------------------------------------------------------------------

    def do_GET(self) -> None:
        path = self._begun()
        if path is None:
            return
        if path == "/api/models":
            self._listing()
        elif path.startswith(("/api/models/", "/api/datasets/")):
            _, kind, owner, name, *rest = path.strip("/").split("/")
            self._api(f"{DATASETS}/{owner}/{name}" if kind == DATASETS else f"{owner}/{name}", rest)
        elif "/resolve/" in path:
            repo, _, file = path.strip("/").partition("/resolve/")
            revision, _, name = file.partition("/")
            self._file(repo, revision, name)
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_GET  # noqa: N815

    def _begun(self) -> str | None:
        """Return the path that is asked for; None where trouble was the answer."""
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.trouble == 0:
            self.close_connection = True
        elif self.hub.trouble:
            self._refuse(self.hub.trouble, "")
        return None if self.hub.trouble is not None else path

    @property
    def _account(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.hub.accounts.get(token)

    def _sees(self, repo: str) -> bool:
        hidden = repo in self.hub.private and self._account != repo.partition("/")[0]
        return (self.hub.folder / repo).is_dir() and not hidden

    def _listing(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        words, tags = asked.get("search", [""])[0].lower(), set(asked.get("filter", []))
        found = [
            self._about(repo)
            for repo in self.hub.repositories()
            if words in repo.lower() and tags <= set(self.hub.tags(repo)) and self._sees(repo)
        ]
        self._answer(found[: int(asked.get("limit", ["1000"])[0])])

    def _about(self, repo: str, revision: str = "main") -> dict[str, Any]:
        folder = self.hub.at(repo, revision) or self.hub.folder / repo
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        return {
            "id": repo.removeprefix(f"{DATASETS}/"),
            "sha": self.hub.commit(repo) if revision == "main" else revision,
            "gated": "manual" if repo in self.hub.gated else False,
            "private": repo in self.hub.private,
            "downloads": len(repo),
            "siblings": [
                {"rfilename": file.relative_to(folder).as_posix(), "size": file.stat().st_size}
                for file in files
            ],
            "tags": self.hub.tags(repo),
            "cardData": self.hub.card(repo),
        }

    def _api(self, repo: str, rest: list[str]) -> None:
        revision = rest[1] if rest[:1] in (["revision"], ["tree"]) else "main"
        folder = self.hub.at(repo, revision)
        if not self._sees(repo):
            self._refuse(404, "RepoNotFound")
        elif rest == ["auth-check"] and repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif folder is None:
            self._refuse(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            below = folder.joinpath(*rest[2:])
            if not below.is_dir():
                self._refuse(404, "EntryNotFound")
                return
            files = [p for p in sorted(below.rglob("*")) if p.is_file()]
            entries = [
                {"type": "file", "path": str(p.relative_to(folder)), "size": p.stat().st_size}
                for p in files
            ]
            self._answer([{**entry, "oid": "0"} for entry in entries])
        else:
            self._answer(self._about(repo, revision))

    def _file(self, repo: str, revision: str, name: str) -> None:
        folder = self.hub.at(repo, revision)
        if not self._sees(repo):
            self._refuse(404, "RepoNotFound")
        elif repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif folder is None:
            self._refuse(404, "RevisionNotFound")
        elif not (folder / name).is_file():
            self._refuse(404, "EntryNotFound")
        else:
            content = (folder / name).read_bytes()
            wanted = self.headers.get("Range", "").removeprefix("bytes=")
            first, _, last = wanted.partition("-")
            part = content[int(first or 0) : int(last) + 1 if last else None]
            if name.endswith(WEIGHTS) and self.command == "GET":
                self.hub.weight_bytes += len(part)
            self.send_response(206 if wanted else 200)
            commit = self.hub.commit(repo) if revision == "main" else revision
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{sha1(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            if wanted:
                end = int(first or 0) + len(part) - 1
                self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
            self._send(part)

    # --- writing ------------------------------------------------------------------------------

    def do_POST(self) -> None:
        path = self._begun()
        body = self._body()
        if path is None:
            return
        if path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self._account is None:
            self._refuse(401, "")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body)["objects"])
        elif path.startswith("/api/models/"):
            owner, name, kind, *_ = path.removeprefix("/api/models/").split("/")
            repo = f"{owner}/{name}"
            if not self._sees(repo):
                self._refuse(404, "RepoNotFound")
            elif owner != self._account:
                self._refuse(403, "")
            elif kind == "preupload":
                self._answer({"files": [self._mode(f["path"]) for f in json.loads(body)["files"]]})
            elif kind == "commit":
                self._commit(repo, [json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "EntryNotFound")

    def do_PUT(self) -> None:
        """Take a large file."""
        path = self._begun()
        hub = self.hub
        if path is None:
            return
        with hub.lock:
            hub.begun += 1
            if hub.breaks_after is not None and hub.begun > hub.breaks_after:
                self.close_connection = True
                return
        content = self._body()
        hash_ = sha256(content).hexdigest()
        assert path == f"/large/{hash_}", "what came is not what was announced"
        hub.stored[hash_] = content
        hub.received.append(hash_)
        self._answer({})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or self._account
        repo = f"{owner}/{asked['name']}"
        if owner != self._account:
            self._refuse(403, "")
        elif (self.hub.folder / repo).is_dir():
            self._answer({"url": f"{self.hub.address}/{repo}"}, status=409)
        else:
            (self.hub.folder / repo).mkdir(parents=True)
            if asked.get("visibility") == "private" or asked.get("private"):
                self.hub.private.add(repo)
            self._answer({"url": f"{self.hub.address}/{repo}"})

    def _mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(LARGE) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        answers = []
        for each in objects:
            actions = {"upload": {"href": f"{self.hub.address}/large/{each['oid']}", "header": {}}}
            here = each["oid"] in self.hub.stored
            answers.append({**each, **({} if here else {"actions": actions})})
        self._answer({"transfer": "basic", "objects": answers})

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        files: dict[str, bytes | None] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                files[value["path"]] = None
        commit = self.hub.change(repo, files)
        self._answer(
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.hub.address}/{repo}/commit/{commit}",
            }
        )

    # --- answers ------------------------------------------------------------------------------

    def _answer(self, data: Any, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self._send(json.dumps(data, default=str).encode())

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self._send(b"")

    def _send(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        rate = self.hub.bytes_per_second
        step = max(len(body), 1) if rate is None else max(rate // 20, 1)
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if rate is not None:
                time.sleep(step / rate)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""
