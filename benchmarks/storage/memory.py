"""Line 9: anonymous memory of a process that loads batches from a store of 1 TB.

Run: make bench-storage ARGS=memory
"""

import subprocess
import sys
from pathlib import Path

from .report import limits
from .settings import BATCH, LENGTH, Settings, start
from .sparse import SHARD_TOKENS, sparse_store

LIMIT_MIB = 50.0
_TERABYTE_SAMPLES = 10**12 // 2 // LENGTH
_DOCUMENTS = 1 << 25
_BATCHES = 5_000

Memory = dict[str, float]


def measure(settings: Settings) -> bool:
    """Print the table; whether the loader keeps within the limit."""
    samples = min(_TERABYTE_SAMPLES, settings.samples)
    with sparse_store(settings.folder / "sparse", samples, SHARD_TOKENS, _DOCUMENTS) as store:
        command = [sys.executable, "-m", f"{__package__}.memory", "child", str(store)]
        run = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    stages = [line.split("\t") for line in run.stdout.splitlines()]
    lines = [(name, float(anonymous), "MiB", None) for name, anonymous, _ in stages[:-1]]
    name, anonymous, tables = stages[-1]
    title = f"9. Anonymous memory (RssAnon) of a loading process, store of {samples * LENGTH * 2 / 1e12:.2f} TB, sparse"
    last = [(name, float(anonymous), "MiB", LIMIT_MIB), ("  the kernel's page tables then", float(tables), "MiB", None)]
    return limits(title, [*lines, *last])


def _child(store: Path) -> None:
    import numpy as np  # noqa: F401

    _tell("interpreter and NumPy")
    from trainwright.config.data import DataConfig, Source
    from trainwright.storage.loading.ahead import Ahead
    from trainwright.storage.loading.training_data import TrainingData

    _tell("the loader imported")
    data = TrainingData.open(DataConfig(train=[Source(store=str(store))], sequence_length=LENGTH, document_mask=True))
    _tell("the store open")
    ahead = Ahead(lambda position: data.batch(position, BATCH), BATCH)
    count = min(_BATCHES, data.num_samples // BATCH)
    for number in range(count):
        batch = ahead.get(number * BATCH)
        assert not batch.tokens.any()
    ahead.close()
    _tell(f"after {count:,} batches of {BATCH}, read ahead by its thread, with document beginnings")


def _tell(name: str) -> None:
    with open("/proc/self/status", encoding="utf-8") as file:
        fields = dict(line.split(":", 1) for line in file)
    anonymous, tables = (int(fields[field].split()[0]) / 1024 for field in ("RssAnon", "VmPTE"))
    print(name, anonymous, tables, sep="\t")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(Path(sys.argv[2]))
    else:
        start(measure)
