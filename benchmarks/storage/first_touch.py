"""Line 6: what checksums on first touch cost over one full epoch, against not checking.

Run: make bench-storage ARGS=first_touch
"""

from pathlib import Path

from trainwright.storage.tokens.reader import open_store

from .corpus import open_corpus
from .formats import our_store
from .readers import ours, random_batches
from .report import Row, rates
from .settings import BATCH, LENGTH, WIDTH, Settings, start
from .timing import Work, alternate


def measure(settings: Settings) -> bool:
    """Print the table; whether the figure was reached."""
    corpus = open_corpus(settings)
    store = our_store(settings, corpus)
    rows = []
    for dtype, wanted in (("int64", 0.75), ("uint16", None)):
        works = _epoch(store, dtype, check=True), _epoch(store, dtype, check=False)
        works[0](0)
        works[1](0)
        rows.append(Row(f"{dtype} batches", alternate(*works, 0, settings.rounds), wanted))
    return rates(
        "6. A whole epoch in random order from a store just opened: checksums on first touch against none", rows
    )


def _epoch(store: Path, dtype: str, *, check: bool) -> Work:
    """Opens the store and reads all of it once; the length asked for does not matter."""

    def work(_: float) -> int:
        opened = open_store(store, check=check)
        read = ours(opened, dtype)
        batches = random_batches((opened.num_tokens - 1) // LENGTH)
        for batch in batches:
            read(batch)
        opened.close()
        return len(batches) * BATCH * WIDTH

    return work


if __name__ == "__main__":
    start(measure)
