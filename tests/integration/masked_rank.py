"""A run's first attempt on one rank that attends by a mask of every pair of tokens: `masked_rank.py RUN_DIR`."""

import os
import sys
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention

from trainwright.parallelism import compat
from trainwright.parallelism.documents import Documents
from trainwright.parallelism.trainer import run_rank


def attend_by_mask(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents) -> torch.Tensor:
    """As documents.attend, by a mask [b, 1, s, s] and every key-value head written out for its queries."""
    q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    lengths = documents.queries.cumulative.diff().tolist()
    numbers = torch.tensor([number for number, each in enumerate(lengths) for _ in range(each)])
    numbers = numbers.view(q.shape[0], 1, q.shape[2])
    allowed = (numbers.unsqueeze(3) == numbers.unsqueeze(2)).tril()
    return scaled_dot_product_attention(q, k, v, attn_mask=allowed).permute(2, 0, 1, 3).flatten(2)


if __name__ == "__main__":
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    compat.prepare()
    from trainwright.parallelism.megatron import batches  # imports megatron, so only after compat.prepare()

    vars(batches)["attend"] = attend_by_mask
    sys.exit(run_rank(Path(sys.argv[1]), 1))
