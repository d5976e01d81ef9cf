"""Line 5: from nothing opened to the first batch, at the start and in mid-epoch, for small and huge stores.

Run: make bench-storage ARGS=first_batch
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from trainwright.config.data import DataConfig, Source
from trainwright.storage.loading.training_data import TrainingData

from .report import limits
from .settings import BATCH, LENGTH, Settings, start
from .sparse import SHARD_TOKENS, sparse_store

LIMIT_MS = 20.0
_SMALL_SHARD = 1 << 17
_DOCUMENTS = 1 << 25

Lines = list[tuple[str, float, str, float | None]]


def measure(settings: Settings) -> bool:
    """Print the table; whether every start keeps within the limit."""
    lines: Lines = []
    sizes = [10**power for power in range(3, 11) if 10**power <= settings.samples]
    for samples in sizes:
        lines += _case(settings, samples, SHARD_TOKENS)
    per_shard = _SMALL_SHARD // LENGTH
    for shards in (1, 10, 1_000, 100_000):
        if shards * per_shard <= settings.samples:
            lines += _case(settings, shards * per_shard - 1, _SMALL_SHARD)
    lines += _with_documents(settings, min(10**7, settings.samples))
    times = [line[1] for line in lines]
    title = (
        f"5. From nothing opened to the first batch of {BATCH} samples, in fresh processes, imports excluded\n"
        f"Medians of {settings.rounds}; sparse stores. Smallest {min(times):.1f} ms, largest {max(times):.1f} ms"
    )
    return limits(title, lines)


def _case(settings: Settings, samples: int, shard_tokens: int) -> Lines:
    name = f"{samples:,} samples, shards: {-(-(samples * LENGTH + 1) // shard_tokens):,}"
    with sparse_store(settings.folder / "sparse", samples, shard_tokens) as store:
        return _starts(name, store, samples, settings.rounds)


def _with_documents(settings: Settings, samples: int) -> Lines:
    """The document index is needed only where documents are kept apart; here it has its real size."""
    with sparse_store(settings.folder / "sparse", samples, SHARD_TOKENS, _DOCUMENTS) as store:
        name = f"{samples:,} samples, documents kept apart (800 tokens each)"
        return _starts(name, store, samples, settings.rounds, mask=True)


def _starts(name: str, store: Path, samples: int, rounds: int, *, mask: bool = False) -> Lines:
    """At the start and in the middle, medians over fresh processes."""
    lines: Lines = []
    for what, position in (("start", 0), ("resume in mid-epoch", samples // 2 + 1)):
        command = [sys.executable, "-m", f"{__package__}.first_batch", "child", str(store), str(position)]
        command += ["mask"] * mask
        runs = [subprocess.run(command, check=True, timeout=120, capture_output=True, text=True) for _ in range(rounds)]
        wall, cpu = (
            statistics.median(column) for column in zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
        )
        lines.append((f"{name}; {what} (CPU {cpu:.1f} ms)", wall, "ms", LIMIT_MS))
    return lines


def _child(store: str, position: int, mask: bool) -> tuple[float, float]:
    """Milliseconds of opening and one batch: by the clock, and of CPU."""
    config = DataConfig(train=[Source(store=store)], sequence_length=LENGTH)
    begun, cpu = time.perf_counter(), time.process_time()
    data = TrainingData.open(config)
    batch = data.batch(position, BATCH, starts=mask)
    elapsed, cpu = time.perf_counter() - begun, time.process_time() - cpu
    assert batch.tokens.shape == (BATCH, LENGTH + 1)
    assert not batch.tokens.any()
    return elapsed * 1e3, cpu * 1e3


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(*_child(sys.argv[2], int(sys.argv[3]), "mask" in sys.argv))
    else:
        start(measure)
