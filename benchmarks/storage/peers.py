"""Readers of other projects, each in the settings that were fastest; peers are imported when they are opened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .mosaic import base
from .readers import Read
from .settings import BATCH, LENGTH, SEED, WIDTH

_CACHE_BYTES = 1 << 30


def litdata_dataset(folder: Path, *, shuffle: bool) -> Any:
    """litdata's StreamingDataset over blocks of WIDTH tokens."""
    from litdata import StreamingDataset, TokensLoader

    return StreamingDataset(str(folder), item_loader=TokensLoader(block_size=WIDTH), shuffle=shuffle, seed=SEED)


def litdata_by_number(folder: Path) -> Read:
    """dataset[i], stacked: uint16 torch [batch, WIDTH]; samples do not overlap."""
    import torch

    dataset = litdata_dataset(folder, shuffle=False)
    return lambda numbers: torch.stack([dataset[number] for number in numbers.tolist()])


def litdata_shuffled(folder: Path) -> Iterator[Any]:
    """Its own shuffled iteration, stacked in batches: uint16 torch [BATCH, WIDTH]."""
    import torch

    return _batched(iter(litdata_dataset(folder, shuffle=True)), torch.stack)


def mosaic_dataset(folder: Path, *, shuffle: bool) -> Any:
    """MosaicML's StreamingDataset over local shards."""
    streaming = base()
    streaming.util.clean_stale_shared_memory()
    return streaming.StreamingDataset(
        local=str(folder), shuffle=shuffle, batch_size=BATCH, num_canonical_nodes=1, shuffle_seed=SEED
    )


def mosaic_by_number(folder: Path) -> Read:
    """dataset[i], stacked: uint16 [batch, WIDTH]; samples do not overlap."""
    dataset = mosaic_dataset(folder, shuffle=False)
    return lambda numbers: np.stack([dataset[number]["tokens"] for number in numbers.tolist()])


def mosaic_shuffled(folder: Path) -> Iterator[Any]:
    """Its own shuffled iteration, stacked in batches: uint16 [BATCH, WIDTH]."""
    samples = (item["tokens"] for item in mosaic_dataset(folder, shuffle=True))
    return _batched(samples, np.stack)


def tensorstore_reader(store: Path) -> Read:
    """A batch of futures over mapped files, with a cache that holds all inner chunks: uint16 [batch, WIDTH]."""
    import tensorstore

    settings = {
        "data_copy_concurrency": {"limit": 2},
        "cache_pool": {"total_bytes_limit": _CACHE_BYTES},
        "file_io_mode": {"mode": "memmap"},
    }
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store)}}
    how: Any = {"open": True, "read": True, "recheck_cached_data": False, "recheck_cached_metadata": False}
    array = tensorstore.open(spec, context=tensorstore.Context(settings), **how).result()

    def read(numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
        starts = (numbers * LENGTH).tolist()
        futures = [array[start : start + WIDTH].read() for start in starts]
        return np.stack([future.result() for future in futures])

    return read


def zarr_reader(store: Path) -> Read:
    """A slice for each sample: uint16 [batch, WIDTH]."""
    import zarr

    array: Any = zarr.open_array(store, mode="r")

    def read(numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
        return np.stack([array[start : start + WIDTH] for start in (numbers * LENGTH).tolist()])

    return read


def zarr_together(store: Path) -> Read:
    """All slices of a batch at once, in zarr's event loop: uint16 [batch, WIDTH]."""
    import asyncio

    import zarr
    from zarr.core.sync import sync

    array: Any = zarr.open_array(store, mode="r")._async_array

    def read(numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
        async def gather() -> list[Any]:
            starts = (numbers * LENGTH).tolist()
            return await asyncio.gather(*(array.getitem(slice(start, start + WIDTH)) for start in starts))

        return np.stack(sync(gather()))

    return read


def megatron_dataset(prefix: Path, cache: Path) -> Any:
    """Megatron's GPTDataset of one epoch over the .bin and .idx, mapped."""
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    config = GPTDatasetConfig(
        random_seed=SEED,
        sequence_length=LENGTH,
        blend=None,
        split="1,0,0",
        path_to_cache=str(cache),
        tokenizer=_NoTokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        mmap_bin_files=True,
    )
    indexed = IndexedDataset(str(prefix), mmap=True)
    documents = np.arange(len(indexed.document_indices) - 1, dtype=np.int32)
    return GPTDataset(indexed, str(prefix), documents, None, Split.train, config)


def megatron_samples(dataset: Any, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """What dataset[i] must hold as tokens and labels, int64 [batch, WIDTH], put together from its documents."""
    sizes = dataset.dataset.sequence_lengths[dataset.document_index]
    ends = np.cumsum(sizes)
    result = np.empty((len(numbers), WIDTH), np.int64)
    for row, number in enumerate(numbers.tolist()):
        start = int(dataset.shuffle_index[number]) * LENGTH
        document = int(np.searchsorted(ends, start, "right"))
        skip, parts, count = start - int(ends[document] - sizes[document]), [], 0
        while count < WIDTH:
            parts.append(dataset.dataset[int(dataset.document_index[document])][skip:])
            count, skip, document = count + len(parts[-1]), 0, document + 1
        result[row] = np.concatenate(parts)[:WIDTH]
    return result


class _NoTokenizer:
    """What GPTDataset asks of a tokenizer."""

    eod, pad, vocab_size = 0, None, 50_257
    unique_identifiers: ClassVar[dict[str, str]] = {"class": "none"}


def _batched(items: Iterator[Any], stack: Any) -> Iterator[Any]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield stack(batch)
            batch = []
