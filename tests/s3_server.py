"""A real S3 server on loopback for tests: moto's, with a bucket, and the variables by which it is found."""

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moto.server import ThreadedMotoServer

BUCKET = "corpora"
# Anybody may read and write: plain HTTP clients do, and so does S3.put.
_POLICY = (
    b'{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", '
    b'"Resource": "arn:aws:s3:::corpora/*"}]}'
)


@dataclass(frozen=True)
class S3:
    """A server that runs; `variables` are what a client needs in its environment."""

    endpoint: str
    variables: dict[str, str]
    server: ThreadedMotoServer

    def put(self, key: str, content: bytes) -> None:
        """Make an object behind the client's back."""
        self._ask("PUT", f"{BUCKET}/{key}", content)

    def get(self, key: str) -> bytes:
        """Content of an object."""
        return self._ask("GET", f"{BUCKET}/{key}")

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._ask("DELETE", f"{BUCKET}/{key}")

    def upload(self, folder: Path, key: str) -> str:
        """Put all files below a folder; the URL of the whole."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder)}", path.read_bytes())
        return f"s3://{BUCKET}/{key}"

    def stop(self) -> None:
        """End the server; whoever asks it afterwards finds nobody."""
        self.server.stop()

    def demand_credentials(self) -> None:
        """From now on refuse requests whose key is not known, and none is."""
        self._ask("POST", "moto-api/reset-auth", b"0")

    def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        kind = {"Content-Type": "application/octet-stream"}  # else flask takes it for a form
        request = urllib.request.Request(f"{self.endpoint}/{path}", content, kind, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            data: bytes = answer.read()
            return data


@contextmanager
def s3_server() -> Iterator[S3]:
    """Start a server with an empty bucket on a free port; it ends with the block."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    variables = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "not-in-any-log",
        "AWS_REGION": "us-east-1",
        "TRAINWRIGHT_OBJECTS_TIMEOUT_S": "2",
    }
    s3 = S3(endpoint, variables, server)
    try:
        s3._ask("POST", "moto-api/reset", b"")  # moto keeps its buckets in this process
        s3._ask("POST", "moto-api/reset-auth", b"1000000000")
        s3._ask("PUT", BUCKET)
        s3._ask("PUT", f"{BUCKET}?policy", _POLICY)
        yield s3
    finally:
        server.stop()
