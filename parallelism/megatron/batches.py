"""The micro batches of a step as one rank of a megatron-core engine takes them.

Imported only after compat.prepare().
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ...storage.loading.offsets import Offsets
from ..documents import Documents, attend
from ..engine import Samples
from .context import ContextShare, SharedContext
from .layers import Packed


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """One pass through the pipeline: what this rank has of `b` samples."""

    ids: torch.Tensor
    """int64 [b, s / context]."""
    positions: torch.Tensor
    """int64 [b, s / context]: of each token in its document, or in its sample where attention crosses documents."""
    packed: Packed | None
    """Attention of this micro batch; None for causal attention over whole samples."""
    labels: torch.Tensor
    """int64 [b, s / context]; as long as ids, and of no meaning where only logits are asked for."""
    counted: torch.Tensor
    """bool [b, s / context]."""


class MicroBatches:
    """Cuts samples into micro batches, and each of them into this rank's share of positions."""

    def __init__(self, share: ContextShare, size: int, device: torch.device | str) -> None:
        """`size` samples make a micro batch."""
        self._share, self._size, self._device = share, size, device

    def of(self, samples: Samples) -> Iterator[MicroBatch]:
        """One after another, each moved to the device when it is asked for."""
        for start in range(0, len(samples.tokens), self._size):
            rows = slice(start, start + self._size)
            tokens = torch.from_numpy(samples.tokens[rows]).to(self._device, non_blocking=True)
            counted = torch.from_numpy(samples.counted[rows]).to(self._device)
            documents = samples.documents
            ends = None if documents is None else documents.cumulative(start, start + self._size)
            yield self._share_of(tokens[:, :-1], tokens[:, 1:], counted, ends)

    def of_tokens(self, ids: torch.Tensor) -> MicroBatch:
        """ids int64 [b, s] on the device, each sample one document."""
        return self._share_of(ids, ids, torch.ones_like(ids, dtype=torch.bool), None)

    def _share_of(
        self, ids: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor, ends: Offsets | None
    ) -> MicroBatch:
        count, length = ids.shape
        documents = None if ends is None else Documents(ends, self._device)
        if documents is None:
            positions = torch.arange(length, device=self._device).expand_as(ids)
        else:
            positions = documents.positions(ids.shape)
        packed = None
        if self._share.size > 1:
            whole = np.arange(count + 1, dtype=np.int32) * length
            shared = SharedContext(self._share, whole if ends is None else ends, length, self._device)
            packed = Packed(shared.attend, length)
        elif documents is not None:
            packed = Packed(partial(attend, documents=documents), length)
        ids, positions, labels, counted = (self._share.local(x) for x in (ids, positions, labels, counted))
        return MicroBatch(
            ids=ids.contiguous(), positions=positions, packed=packed, labels=labels.contiguous(), counted=counted
        )
