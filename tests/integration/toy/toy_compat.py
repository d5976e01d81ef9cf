"""No megatron-core here, so nothing to prepare."""


def prepare() -> None:
    """Nothing."""


def versions() -> dict[str, str]:
    """For the manifest."""
    return {"engine": "toy"}
