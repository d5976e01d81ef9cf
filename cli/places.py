"""Places that commands are given: folders of this machine, or URLs of stores in an object store."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..storage.tokens.locations import Location


def local_path(text: str) -> Path:
    """A path of this machine, as an argument's type."""
    from ..config.urls import is_url, without_secrets

    if is_url(text):
        problem = f"{without_secrets(text)} is a URL, and this works on this machine's files"
        raise argparse.ArgumentTypeError(f"{problem}: build a store here, then `trainwright data copy` it")
    return Path(text)


def location(text: str) -> "Location":
    """A path, or a URL of a store, as an argument's type."""
    from ..config.errors import UserError
    from ..config.urls import is_url

    if not is_url(text):
        return Path(text)
    from ..storage.tokens.locations import locate

    try:
        return locate(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
