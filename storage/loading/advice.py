"""Which window of the data order suits a store where it lies: what `data inspect --advise` says."""

from dataclasses import dataclass

from ..tokens.filesystem import Place, choose_how, measure_objects, sequential_mb_per_s
from ..tokens.locations import Location
from ..tokens.mounts import is_local
from ..tokens.objects import ObjectPath
from ..tokens.store import StoreInfo, read_info
from .order import MAX_BLOCK

_DECODED_BYTES = 256 << 20
_BLOCKS_PER_WINDOW = 1024
_MANY_MS = 1.0  # a random chunk that takes longer than this is worth reading in larger pieces


@dataclass(frozen=True)
class Advice:
    """What to set, and why."""

    place: Place
    sequential_mb_per_s: float
    window: int | None
    """For data.window; None is the whole store."""
    why: str


def advise(store: Location, sequence_length: int) -> Advice:
    """Measure and advise for samples of `sequence_length` tokens. Raises UserError and FoundBad as open_store does."""
    info = read_info(store)
    place = measure_objects(store, info) if isinstance(store, ObjectPath) else choose_how(store)
    rate = sequential_mb_per_s(store, info)
    window, why = _window(info, place, sequence_length)
    num_samples = (info.tokens - 1) // sequence_length
    if window is not None and window >= num_samples:
        window, why = None, f"a window of {window} samples would be the whole store"
    return Advice(place, rate, window, why)


def _window(info: StoreInfo, place: Place, sequence_length: int) -> tuple[int | None, str]:
    sample_bytes = sequence_length * info.numpy_dtype.itemsize
    if info.compression != "none":
        window = max(MAX_BLOCK * 16, _DECODED_BYTES // sample_bytes // MAX_BLOCK * MAX_BLOCK)
        return window, "chunks are compressed: within a window each is decoded once and kept, 256 MiB in all"
    times = [each for each in (place.map_ms, place.plain_ms) if each is not None]
    if is_local(place.filesystem) or not times or min(times) < _MANY_MS:
        return None, f"random reads are cheap here ({place.filesystem}): the whole store is shuffled"
    window = MAX_BLOCK * _BLOCKS_PER_WINDOW
    size = MAX_BLOCK * sample_bytes / 1e6
    why = f"a random chunk takes {min(times):.1f} ms on {place.filesystem}: a window reads blocks of {size:.2g} MB"
    return window, why
