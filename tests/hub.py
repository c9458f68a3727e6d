"""A hub on this machine: serves folders as the Hugging Face hub does, and counts what it sends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from transformers.utils.hub import hf_api

WEIGHTS = (".safetensors", ".bin")


@dataclass
class Hub:
    """What a hub has, and what it was asked for."""

    folder: Path
    """Has a folder `owner/name` for every model."""
    gated: set[str] = field(default_factory=set)
    trouble: int | None = None
    """It answers every question with this status, or with 0 hangs up."""
    bytes_per_second: int | None = None
    """Of a file; None for as fast as it goes."""
    address: str = ""
    requests: list[str] = field(default_factory=list)
    weight_bytes: int = 0
    """Sent of the files with weights."""

    def commit(self, repo: str) -> str:
        """Return the commit of a repository's one revision."""
        return sha1(repo.encode()).hexdigest()


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Hub]:
    """Serve a folder of models until the end of the block."""
    hub = Hub(folder, **settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def ask(hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let this process ask a hub in place of the real one, with an empty cache."""
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hf_api(), "endpoint", hub.address)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.trouble == 0:
            self.close_connection = True
        elif self.hub.trouble:
            self._refuse(self.hub.trouble, "")
        elif path.startswith("/api/models/"):
            self._api(*path.removeprefix("/api/models/").split("/"))
        elif "/resolve/" in path:
            owner, name, _, revision, *parts = path.strip("/").split("/")
            self._file(f"{owner}/{name}", revision, "/".join(parts))
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_GET  # noqa: N815

    def _api(self, owner: str, name: str, *rest: str) -> None:
        repo = f"{owner}/{name}"
        folder = self.hub.folder / repo
        if not folder.is_dir():
            self._refuse(404, "RepoNotFound")
        elif rest == ("auth-check",) and repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif rest[:1] in (("revision",), ("tree",)) and not self._knows(repo, rest[1]):
            self._refuse(404, "RevisionNotFound")
        elif rest[:1] == ("tree",):
            found = folder.joinpath(*rest[2:])
            if not found.is_dir():
                self._refuse(404, "EntryNotFound")
                return
            files = [p for p in sorted(found.rglob("*")) if p.is_file()]
            entries = [
                {"type": "file", "path": str(p.relative_to(folder)), "size": p.stat().st_size}
                for p in files
            ]
            self._answer([{**entry, "oid": "0"} for entry in entries])
        else:
            self._answer(
                {
                    "id": repo,
                    "sha": self.hub.commit(repo),
                    "gated": "manual" if repo in self.hub.gated else False,
                    "private": False,
                    "siblings": [
                        {"rfilename": p.name, "size": p.stat().st_size}
                        for p in sorted(folder.iterdir())
                        if p.is_file()
                    ],
                    "cardData": {"license": "apache-2.0", "language": ["ko"]},
                }
            )

    def _knows(self, repo: str, revision: str) -> bool:
        return revision in ("main", self.hub.commit(repo))

    def _file(self, repo: str, revision: str, name: str) -> None:
        file = self.hub.folder / repo / name
        if not (self.hub.folder / repo).is_dir():
            self._refuse(404, "RepoNotFound")
        elif repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif not self._knows(repo, revision):
            self._refuse(404, "RevisionNotFound")
        elif not file.is_file():
            self._refuse(404, "EntryNotFound")
        else:
            content = file.read_bytes()
            wanted = self.headers.get("Range", "").removeprefix("bytes=")
            first, _, last = wanted.partition("-")
            part = content[int(first or 0) : int(last) + 1 if last else None]
            if name.endswith(WEIGHTS) and self.command == "GET":
                self.hub.weight_bytes += len(part)
            self.send_response(206 if wanted else 200)
            self.send_header("X-Repo-Commit", self.hub.commit(repo))
            self.send_header("ETag", f'"{sha1(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            if wanted:
                end = int(first or 0) + len(part) - 1
                self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
            self._send(part)

    def _answer(self, data: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._send(json.dumps(data).encode())

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
