"""Attention inside documents on a GPU, in 16-bit numbers and in float32, against a mask on the CPU."""

import random

import numpy as np
import pytest
import torch

from trainwright.parallelism import documents
from trainwright.parallelism.documents import Documents, attend
from trainwright.parallelism.megatron.context import ContextShare, SharedContext

from ..unit.parallelism.test_documents import draw_lengths, gradients, heads_of, masked, rng

__all__ = ["rng"]
pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 3e-2), (torch.float16, 5e-3), (torch.float32, 2e-3)])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_as_on_the_cpu(dtype: torch.dtype, limit: float, kv_heads: int, rng: random.Random) -> None:
    for length in (40, 700):
        samples = draw_lengths(rng, length, 2)
        heads = heads_of(rng, (length, 2), kv_heads)
        q, k, v = (x.detach().to("cuda", dtype).requires_grad_() for x in heads)
        ends = np.cumsum([0, *(each for lengths in samples for each in lengths)]).astype(np.int32)
        out = attend(q, k, v, Documents(ends, "cuda"))
        expected = masked(heads, samples)
        torch.testing.assert_close(out.cpu().double(), expected, rtol=limit, atol=limit)
        for mine, theirs in zip(gradients(out, (q, k, v)), gradients(expected, heads), strict=True):
            assert (mine.cpu() - theirs).abs().max() <= limit * theirs.abs().max()


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 3e-2), (torch.float32, 2e-3)])
def test_context_ranks_together_are_the_whole(dtype: torch.dtype, limit: float, rng: random.Random) -> None:
    """Each rank's queries see more keys than there are queries: the kernel must align them at the end."""
    size, length, count = 2, 400, 2
    samples = draw_lengths(rng, length, count)
    heads = heads_of(rng, (length, count), 2)
    ends = np.cumsum([0, *(each for lengths in samples for each in lengths)]).astype(np.int32)
    shares = [ContextShare(size, rank) for rank in range(size)]
    q, k, v = ([share.local(x.to("cuda", dtype).transpose(0, 1)).transpose(0, 1) for share in shares] for x in heads)
    gathered = torch.cat([torch.stack(pair, dim=2) for pair in zip(k, v, strict=True)])
    contexts = [SharedContext(share, ends, length, "cuda") for share in shares]
    parts = [context.attend_to(mine, gathered) for context, mine in zip(contexts, q, strict=True)]
    found = torch.cat(parts)[torch.from_numpy(shares[0].rows(np.arange(length), length)).to("cuda")]
    torch.testing.assert_close(found.cpu().double(), masked(heads, samples), rtol=limit, atol=limit)


def test_the_kernel_is_taken_where_it_should_be() -> None:
    assert documents._kernel() is not None, "this torch has no varlen_attn of this form"
    q = torch.empty(8, 4, 64, device="cuda", dtype=torch.bfloat16)
    assert documents._has_kernel(q) == (torch.cuda.get_device_capability() >= (8, 0))
    assert not documents._has_kernel(q.float())
