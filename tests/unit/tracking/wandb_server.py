"""As much of a W&B server as its client needs: runs that can be resumed, history in files, artifacts; on loopback."""

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

KEY = "k" * 20 + "0123456789abcdef0123"


@dataclass
class ServedRun:
    """What the server was told of one run."""

    history: list[str] = field(default_factory=list)
    """Lines of its history, as they came."""
    summary: str = "{}"
    exit_codes: list[int] = field(default_factory=list)
    upserts: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)

    def steps(self) -> list[int]:
        """Steps of the history, in the order of its lines."""
        return [json.loads(line)["_step"] for line in self.history]

    def values(self, key: str) -> list[Any]:
        """One value of each line that has it."""
        return [line[key] for line in map(json.loads, self.history) if key in line]


class WandbServer:
    """Listens on a port of its own until closed; `broken` is the status that history is answered with, if any."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.runs: dict[str, ServedRun] = {}
        self.manifests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.unknown: list[str] = []
        self.broken: int | None = None
        self.accepts = True
        owner = self

        class Handler(_Handler):
            server_state = owner

        self._http = _Http((host, 0), Handler)
        self.url = f"http://{host}:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL query or mutation."""
        match name:
            case "Viewer" | "GetDefaultEntity":
                return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
            case "RunResumeStatus":
                return {"model": self._resume(given["name"]) if given["name"] in self.runs else None}
            case "UpsertBucket":
                return {"upsertBucket": self._upsert(given)}
            case "CreateRunFiles":
                files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in given["files"]]
                return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
            case "Run" | "RunHistoryKeys":
                return {"project": {"run": self._shown(given["name"])}}
            case "ArtifactType":
                return {"project": None}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "CreateArtifact":
                return {"createArtifact": {"artifact": self._artifact(given["input"])}}
            case "CreateArtifactManifest":
                file = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": f"{self.url}/upload/manifest"}
                manifest = {"id": "m", "file": file | {"uploadHeaders": []}}
                return {"createArtifactManifest": {"artifactManifest": manifest}}
            case "CommitArtifact":
                return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}
        self.unknown.append(name)
        return {}

    def take_history(self, run: str, body: dict[str, Any]) -> None:
        """One post of a run's file stream."""
        served = self.runs[run]
        for name, part in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                served.history[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
            elif name == "wandb-summary.json":
                served.summary = part["content"][-1]
        if body.get("complete"):
            served.exit_codes.append(body["exitcode"])

    def _resume(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        bucket = {
            "id": name,
            "name": name,
            "summaryMetrics": run.summary,
            "displayName": "shown",
            "historyLineCount": len(run.history),
            "historyTail": json.dumps(run.history[-1:]),
            "eventsTail": "[]",
            "config": "{}",
            "tags": [],
            "notes": None,
            "wandbConfig": '{"t": 1}',
        }
        counts = {"logLineCount": 0, "eventsLineCount": 0}
        return {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": bucket | counts}

    def _shown(self, name: str) -> dict[str, Any]:
        """A run as W&B's public API shows it."""
        run = self.runs[name]
        names = ("id", "name", "displayName", "sweepName", "group", "jobType", "commit", "description", "notes", "user")
        texts = {"config": "{}", "systemMetrics": "{}", "summaryMetrics": run.summary, "state": "running", "tags": []}
        times = {"createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00", "readOnly": False}
        keys = {"historyKeys": {"lastStep": max(run.steps(), default=-1)}, "historyLineCount": len(run.history)}
        own = {"id": name, "name": name, "projectId": "1", "user": {"name": "me", "username": "me"}}
        return {**dict.fromkeys(names), **texts, **times, **keys, **own}

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        new = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], ServedRun())
        run.upserts.append(given)
        entity = {"id": "e", "name": given["entity"] or "me"}
        bucket = {
            "id": given["name"],
            "name": given["name"],
            "displayName": given["displayName"],
            "project": {"id": "p", "name": given["project"], "entity": entity},
            "historyLineCount": len(run.history),
        }
        return {"bucket": bucket, "inserted": new}

    def _artifact(self, given: dict[str, Any]) -> dict[str, Any]:
        known = self.runs[given["runName"]].artifacts
        if given["digest"] not in [each["digest"] for each in known]:
            known.append(given)
        return {"id": given["digest"], "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed drops its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._send(200, {})

    def do_PUT(self) -> None:
        body = self._body()
        if self.path == "/upload/manifest":
            self.server_state.manifests.append(json.loads(body))
        self._send(200, {})

    def do_POST(self) -> None:
        state, body = self.server_state, self._body()
        state.keys.add(self.headers.get("Authorization", ""))
        if not state.accepts:
            return self._send(401, {"errors": [{"message": "user is not logged in"}]})
        if self.path == "/graphql":
            query = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            assert name
            return self._send(200, {"data": state.answer(name.group(1), query.get("variables") or {})})
        if self.path.endswith("/file_stream"):
            if state.broken:
                return self._send(state.broken, {"error": "out of order"})
            state.take_history(unquote(self.path).split("/")[-2], json.loads(body))
        return self._send(200, {"exitcode": None, "limits": {}})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
