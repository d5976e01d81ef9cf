"""No megatron-core here, so nothing to prepare."""


def prepare() -> None:
    """Nothing."""
