from typing import Any

from numpy.typing import NDArray

def samples(
    key: int,
    num_samples: int,
    block: int,
    span: int,
    num_blocks: int,
    positions: NDArray[Any],
    out: NDArray[Any],
) -> None: ...
