"""Attention under context parallel, rank by rank, against one that is told of every pair of tokens."""

import random

import numpy as np
import pytest
import torch

from trainwright.parallelism.megatron.context import ContextShare, SharedContext

from ..test_documents import HEAD_DIM, HEADS, draw_lengths, gradients, heads_of, masked, rng

__all__ = ["rng"]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("kv_heads", [1, 2, HEADS])
def test_all_ranks_together_are_the_whole(size: int, kv_heads: int, rng: random.Random) -> None:
    for _ in range(4):
        length, count = 2 * size * rng.randint(1, 30), rng.randint(1, 3)
        samples = draw_lengths(rng, length, count)
        ends = np.cumsum([0, *(each for lengths in samples for each in lengths)]).astype(np.int32)
        heads = heads_of(rng, (length, count), kv_heads)
        shares = [ContextShare(size, rank) for rank in range(size)]
        q, k, v = ([share.local(x.transpose(0, 1)).transpose(0, 1) for share in shares] for x in heads)
        gathered = torch.cat([torch.stack(pair, dim=2) for pair in zip(k, v, strict=True)])
        contexts = [SharedContext(share, ends, length, "cpu") for share in shares]
        parts = [context.attend_to(mine, gathered) for context, mine in zip(contexts, q, strict=True)]
        order = torch.from_numpy(shares[0].rows(np.arange(length), length))
        found, expected = torch.cat(parts)[order], masked(heads, samples)
        assert found.shape == (length, count, HEADS * HEAD_DIM)
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
        for mine, theirs in zip(gradients(found, heads), gradients(expected, heads), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_ranks_have_the_same_work() -> None:
    """Pairs of queries and keys of a sample that is one document."""
    ends = np.array([0, 64], np.int32)
    runs = [SharedContext(ContextShare(4, rank), ends, 64, "cpu").runs for rank in range(4)]
    pairs = [sum(run.num_queries * (2 * run.num_keys - run.num_queries + 1) // 2 for run in each) for each in runs]
    assert len(set(pairs)) == 1
    assert sum(pairs) == 64 * 65 // 2
