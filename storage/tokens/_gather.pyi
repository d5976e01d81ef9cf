from typing import Any

from numpy.typing import NDArray

def gather(
    bases: NDArray[Any],
    checked: NDArray[Any],
    starts: NDArray[Any],
    rows: NDArray[Any],
    out: NDArray[Any],
    geometry: tuple[int, int, int, int, int],
    check: bool,
    first: int,
) -> tuple[int, int, int]: ...
def announce(
    bases: NDArray[Any],
    checked: NDArray[Any],
    starts: NDArray[Any],
    rows: NDArray[Any],
    out: NDArray[Any],
    geometry: tuple[int, int, int, int, int],
    check: bool,
    first: int,
) -> tuple[int, int, int]: ...
def map_file(descriptor: int, size: int) -> int: ...
def unmap(address: int, size: int) -> None: ...
def crc32c(data: bytes | NDArray[Any]) -> int: ...
