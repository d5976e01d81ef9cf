"""URLs of token stores in object stores: what is told from a folder's path, and what must not stand in one."""

import re
from pathlib import Path

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET = re.compile(r"(://)[^/@\s]*@")


def is_url(text: str) -> bool:
    """Whether a text is meant as a URL, good or bad, and not as a path."""
    return _URL.match(text) is not None


def check_url(text: str) -> str:
    """The URL without a slash at its end. Raises ValueError for what no store can lie at, and for one with secrets."""
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme}:// is not a place for stores: use one of {', '.join(SCHEMES)}, or a path")
    if "@" in rest.partition("/")[0] and not scheme.startswith("abfs"):  # there it is container@account
        raise ValueError("no user or password in a URL: credentials come from the environment (docs/token-store.md)")
    if "?" in rest or "#" in rest:
        raise ValueError("no ? or # in a URL: credentials come from the environment (docs/token-store.md)")
    if ":" in rest.partition("@")[0] and "@" in rest:
        raise ValueError("no password in a URL: credentials come from the environment (docs/token-store.md)")
    if not rest.strip("/"):
        raise ValueError("names no bucket or host: write SCHEME://BUCKET/FOLDER")
    return text.rstrip("/")


def without_secrets(text: str) -> str:
    """A text with what stands for user and password in its URLs blotted out, and their queries cut off."""
    return re.sub(r"(://[^\s?\"']*)\?[^\s\"']*", r"\1", _SECRET.sub(r"\1***@", text))


def absolute(text: str, folder: Path) -> str:
    """A path taken from a folder, made absolute; a URL as it is."""
    return text if is_url(text) else str(Path(folder, Path(text).expanduser()))
