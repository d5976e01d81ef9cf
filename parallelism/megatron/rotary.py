"""Rotary embeddings of positions that begin anew with each document.

Imported only after compat.prepare().
"""

from typing import Any

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding


class RestartingRotary(RotaryEmbedding):  # type: ignore[misc]
    """megatron-core's rotary embedding, at given positions instead of a sample's 0, 1, 2, ..."""

    positions: torch.Tensor | None = None
    """int64 [b, s], to be given anew before each forward pass."""

    def forward(self, max_seq_len: int, *_: Any, **__: Any) -> torch.Tensor:
        """Angles [s, b, 1, the head_dim that is turned]; no position is above max_seq_len."""
        positions, self.positions = self.positions, None
        assert positions is not None, "nobody said where documents begin"
        angles: torch.Tensor = self.get_emb(max_seq_len)
        return angles[positions.t(), 0]
