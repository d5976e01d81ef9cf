"""Files of object stores (S3, Google, Azure, HTTP) through obstore: the part of pathlib that reading a store needs.

Credentials are obstore's matter: environment, instance roles, and with AWS_PROFILE boto3. None passes through here.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from ...config.errors import UserError
from ...config.urls import without_secrets

TIMEOUT_VARIABLE = "TRAINWRIGHT_OBJECTS_TIMEOUT_S"
_TIMEOUT_S = 60.0
VARIABLES = ("AWS_", "AZURE_", "GOOGLE_")
"""What the variables begin with that decide how an object store is reached."""
_MAX_REASON = 200


class Unreadable(UserError):
    """An object store did not answer, or refused: nobody knows whether the data is good."""


class Size(NamedTuple):
    """What `stat` tells of an object."""

    st_size: int


class ObjectPath:
    """A place in an object store. Absent objects raise FileNotFoundError, all other failures Unreadable."""

    def __init__(self, root: str, key: str = "") -> None:
        """`root` is a URL without a slash at its end; `key` is taken from there."""
        self._root, self._key = root, key

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(self._root, f"{self._key}/{name}" if self._key else name)

    def __str__(self) -> str:
        return f"{self._root}/{self._key}" if self._key else self._root

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    @property
    def scheme(self) -> str:
        """What stands before ://."""
        return self._root.partition("://")[0]

    @property
    def name(self) -> str:
        return str(self).rpartition("/")[2]

    def with_name(self, name: str) -> "ObjectPath":
        """The place beside this one."""
        parent, _, _ = self._key.rpartition("/")
        return ObjectPath(self._root, f"{parent}/{name}" if parent else name)

    def stat(self) -> Size:
        """Size in bytes."""
        with self._asking() as (obstore, store):
            return Size(int(obstore.head(store, self._key)["size"]))

    def exists(self) -> bool:
        """Whether there is such an object."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_file(self) -> bool:
        """As exists: only objects are seen."""
        return self.exists()

    def is_dir(self) -> bool:
        """Never: an object store has no folders."""
        return False

    def read_bytes(self) -> bytes:
        """All of an object."""
        with self._asking() as (obstore, store):
            return bytes(obstore.get(store, self._key).bytes())

    def read_range(self, start: int, size: int) -> bytes:
        """Bytes start..start+size-1 in one request, or fewer where the object ends."""
        with self._asking() as (obstore, store):
            return bytes(obstore.get_range(store, self._key, start=start, length=size))

    def read_tail(self, size: int) -> tuple[bytes, int]:
        """The last `size` bytes, or all of a smaller object, and the size of the whole, in one request."""
        with self._asking() as (obstore, store):
            result = obstore.get(store, self._key, options={"range": {"suffix": size}})
            return bytes(result.bytes()), int(result.meta["size"])

    def pieces(self, size: int) -> Iterator[bytes]:
        """All bytes in order, `size` at a time, each in a request of its own: a slow line does not end a long one."""
        total = self.stat().st_size
        for start in range(0, total, size):
            yield self.read_range(start, min(size, total - start))

    def sizes(self) -> dict[str, int] | None:
        """Size of every object below this place, by its name from here; None where the store cannot list."""
        if self.scheme in ("http", "https"):
            return None
        with self._asking() as (obstore, store):
            prefix = f"{self._key}/" if self._key else ""
            listed = obstore.list(store, prefix or None)
            return {item["path"].removeprefix(prefix): item["size"] for page in listed for item in page}

    def put(self, content: bytes) -> None:
        """Make the object out of bytes; it appears whole."""
        with self._asking("written") as (obstore, store):
            obstore.put(store, self._key, content)

    def put_pieces(self, pieces: Iterator[bytes]) -> None:
        """Make the object out of pieces, in several parts; it appears whole. What `pieces` raises is raised."""
        with self._asking("written") as (obstore, store):
            obstore.put(store, self._key, _from_a_thread(pieces))

    @contextmanager
    def _asking(self, what: str = "read") -> Iterator[tuple[Any, Any]]:
        """obstore and the store; its exceptions come out as FileNotFoundError or Unreadable, without secrets."""
        own = ((name, value) for name, value in os.environ.items() if name.startswith(VARIABLES))
        obstore, store = _client(self._root, timeout_s(), tuple(sorted(own)))
        try:
            yield obstore, store
        except UserError:  # of whoever gave the pieces
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise _no_bucket(self) from None
            raise FileNotFoundError(f"{self}: no such object") from None
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise _unreadable(self, what, error) from None


def _from_a_thread(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, made in another thread: obstore's own may not ask an object store for them."""
    with ThreadPoolExecutor(1, thread_name_prefix="pieces") as thread:
        while (piece := thread.submit(next, pieces, None).result()) is not None:
            yield piece


def timeout_s() -> float:
    """Seconds that an object store may go without answering before it is given up."""
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text or _TIMEOUT_S)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise UserError(TIMEOUT_VARIABLE, repr(text), "give a number of seconds above 0")
    return seconds


@lru_cache(maxsize=64)
def _client(root: str, patience_s: float, variables: tuple[tuple[str, str], ...]) -> tuple[Any, Any]:
    """obstore and its store of a URL; `variables` are the environment's, which obstore reads itself.

    Raises UserError if it is not installed or the URL is none.
    """
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        remedy = "install the extra: pip install 'trainwright[objects]'"
        raise UserError(root, "reading object stores needs the package obstore", remedy) from None
    given = dict(variables)
    endpoints = [given.get(name, "") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")]
    profile = None if "AWS_ACCESS_KEY_ID" in given else given.get("AWS_PROFILE")
    request = timedelta(seconds=min(30.0, patience_s))
    options: dict[str, Any] = {
        "client_options": {
            "allow_http": any(each.startswith("http://") for each in (root, *endpoints)),
            "timeout": request,
            "connect_timeout": timedelta(seconds=min(5.0, patience_s)),
        },
        "retry_config": {
            "max_retries": 1000,  # the seconds decide
            "retry_timeout": timedelta(seconds=patience_s),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    }
    if profile and root.startswith(("s3://", "s3a://")):
        options["credential_provider"] = _profile_credentials(root, profile)
    try:
        return obstore, obstore.store.from_url(root, **options)
    except (obstore.exceptions.BaseError, ValueError) as error:
        problem = f"no object store there ({_reason(error)})"
        raise UserError(root, problem, "check the URL and the environment") from None


def _profile_credentials(root: str, profile: str) -> Any:
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()  # its session reads AWS_PROFILE itself
    except ImportError:
        remedy = "pip install boto3, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise UserError(root, f"AWS_PROFILE={profile} needs the package boto3", remedy) from None
    except Exception as error:  # botocore has many names for a profile that is not there
        raise UserError(root, f"AWS_PROFILE={profile}: {error}", "check ~/.aws/config") from None


def _no_bucket(place: ObjectPath) -> Unreadable:
    return Unreadable(str(place), "no such bucket", "check the URL, and AWS_ENDPOINT_URL if the store is not Amazon's")


def _unreadable(place: ObjectPath, what: str, error: Exception) -> Exception:
    text = str(error)
    if "NoSuchBucket" in text:
        return _no_bucket(place)
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or re.search(r"40[13] [A-Z]", text):
        remedy = "check credentials and policy; of the environment, jobs get what cluster.environment names"
        return Unreadable(str(place), f"access refused ({_reason(error)})", remedy)
    remedy = "check the network and AWS_ENDPOINT_URL, then try again (`trainwright submit RUN` goes on with a run)"
    return Unreadable(str(place), f"cannot be {what} ({_reason(error)})", remedy)


def _reason(error: Exception) -> str:
    """The first line of what went wrong, without what a URL may hold of secrets, and without markup."""
    told = re.search(r"status code: (\d{3} [A-Za-z ]+)", str(error))
    if told:
        return f"the server said {told[1].strip()}"
    line = without_secrets((str(error) or type(error).__name__).splitlines()[0])
    reason = re.sub(r"<\?xml.*|<!doctype.*|max_retries: \d+, ", "", line).strip(" :-")
    return reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}..."
