"""Versions of what computes, as installed here. No torch."""

import importlib.metadata
from collections.abc import Sequence

from .errors import UserError

_PACKAGES = ("trainwright", "torch", "megatron-core", "transformer-engine", "deepspeed", "transformers", "numpy")


def installed_versions() -> dict[str, str]:
    """Package to version; those that are not installed are left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def require_installed(command: str, packages: Sequence[str], extra: str) -> None:
    """Raises UserError naming those packages that are not installed, and the extra that brings them."""
    missing = [package for package in packages if package not in installed_versions()]
    if missing:
        raise UserError(command, f"{', '.join(missing)} is not installed here", f"pip install 'trainwright[{extra}]'")
