"""A client of an endpoint's public API, in the standard library alone: for checks, not for load."""

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class EndpointClient:
    """Asks the endpoint at `url` (ending in /v1) with `key`."""

    url: str
    key: str

    def complete(self, body: dict[str, Any], timeout_s: float = 60.0) -> tuple[int, dict[str, Any]]:
        """POST /v1/completions; HTTP status and answer. OSError if the endpoint is out of reach."""
        status, text = self._ask("POST", "/v1/completions", json.dumps(body), timeout_s)
        return status, json.loads(text)

    def _ask(self, method: str, path: str, body: str | None, timeout_s: float) -> tuple[int, str]:
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=timeout_s)
        try:
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise ConnectionError(f"{self.url}: {type(error).__name__}") from error
        finally:
            connection.close()
