from typing import Any

import numpy as np
from numpy.typing import NDArray

def frame(
    tokens: NDArray[Any], itemsize: int, chunk_tokens: int, out: NDArray[np.uint8], counts: NDArray[np.uint32]
) -> bool: ...
def crc32c(data: bytes, way: int) -> int | None: ...
