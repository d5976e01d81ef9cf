"""Versions of what computes, as installed here. No torch."""

import importlib.metadata

_PACKAGES = ("trainwright", "torch", "megatron-core", "deepspeed", "transformers", "numpy")


def installed_versions() -> dict[str, str]:
    """Package to version; those that are not installed are left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
