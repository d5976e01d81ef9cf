from typing import Any

from numpy.typing import NDArray

def gather(
    bases: NDArray[Any],
    checked: NDArray[Any],
    numbers: NDArray[Any],
    lengths: NDArray[Any] | None,
    rows: NDArray[Any] | None,
    out: NDArray[Any],
    sizes: tuple[int, int, int],
    store: tuple[int, int, int, int, bool],
    first: int,
) -> tuple[int, int, int, int]: ...

announce = gather

def bounds(
    bases: NDArray[Any],
    checked: NDArray[Any],
    values: NDArray[Any],
    out: NDArray[Any],
    ceiling: int,
    array: tuple[int, int, int, int, bool],
    first: int,
) -> tuple[int, int, int]: ...
def map_shards(
    bases: NDArray[Any],
    known: NDArray[Any],
    shards: NDArray[Any],
    store: tuple[int, int, int, int, bool],
    folder: bytes,
    room: int,
) -> list[tuple[int, int, int]]: ...
def map_file(descriptor: int, size: int) -> int: ...
def unmap(address: int, size: int) -> None: ...
