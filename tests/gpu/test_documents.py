"""Attention inside documents on a GPU, in 16-bit numbers and in float32, against a mask on the CPU."""

import random

import numpy as np
import pytest
import torch

from trainwright.parallelism import documents
from trainwright.parallelism.documents import Documents, attend

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


def test_the_kernel_is_taken_where_it_should_be() -> None:
    assert documents._kernel() is not None, "this torch has no varlen_attn of this form"
    q = torch.empty(8, 4, 64, device="cuda", dtype=torch.bfloat16)
    assert documents._has_kernel(q) == (torch.cuda.get_device_capability() >= (8, 0))
    assert not documents._has_kernel(q.float())
