"""Attention inside documents, against one that is told of every pair of tokens."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from trainwright.parallelism.documents import SHARED, Documents, attend, in_one_kernel

HEADS, HEAD_DIM = 4, 8
Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def rng() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


def draw_lengths(rng: random.Random, length: int, count: int) -> list[list[int]]:
    """Lengths of documents in samples of one length: single tokens, whole samples, and all between."""
    samples = []
    for _ in range(count):
        typical, lengths = rng.choice((1, 3, SHARED, length)), list[int]()
        while sum(lengths) < length:
            lengths.append(min(length - sum(lengths), rng.choice((1, rng.randint(1, 2 * typical)))))
        samples.append(lengths)
    return samples


def documents_of(samples: list[list[int]]) -> Documents:
    flat = [each for lengths in samples for each in lengths]
    return Documents(np.cumsum([0, *flat]).astype(np.int32), "cpu")


def heads_of(rng: random.Random, shape: tuple[int, int], kv_heads: int) -> Heads:
    generator = torch.Generator().manual_seed(rng.randrange(1 << 32))
    q, k, v = (torch.randn(*shape, count, HEAD_DIM, generator=generator) for count in (HEADS, kv_heads, kv_heads))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def masked(heads: Heads, samples: list[list[int]]) -> torch.Tensor:
    """The same by a mask of every pair, in float64."""
    q, k, v = (x.permute(1, 2, 0, 3).double() for x in heads)
    pairs = [[a == b for a in numbers for b in numbers] for numbers in map(numbers_of, samples)]
    allowed = torch.tensor(pairs).view(len(samples), 1, q.shape[2], q.shape[2]).tril()
    out = scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=True)
    return out.permute(2, 0, 1, 3).flatten(2)


def numbers_of(lengths: list[int]) -> list[int]:
    return [number for number, each in enumerate(lengths) for _ in range(each)]


def gradients(out: torch.Tensor, heads: Heads) -> tuple[torch.Tensor, ...]:
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return torch.autograd.grad((out * weights).sum(), heads)


@pytest.mark.parametrize("kv_heads", [1, 2, HEADS])
def test_as_with_a_mask_of_every_pair(kv_heads: int, rng: random.Random) -> None:
    for _ in range(8):
        length, count = rng.choice((1, 7, 40, 150)), rng.randint(1, 3)
        samples = draw_lengths(rng, length, count)
        heads = heads_of(rng, (length, count), kv_heads)
        found, expected = attend(*heads, documents_of(samples)), masked(heads, samples)
        assert found.shape == (length, count, HEADS * HEAD_DIM)
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
        again = attend(*heads, documents_of(samples))
        assert torch.equal(found, again)
        for mine, theirs, repeated in zip(
            gradients(found, heads), gradients(expected, heads), gradients(again, heads), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
            assert torch.equal(mine, repeated)


def test_no_run_is_larger_than_its_documents_need(rng: random.Random) -> None:
    """Masks stay small: memory grows with the tokens, and a document more does not cost a call more."""
    for samples in ([[1] * 1000], [[1000]], draw_lengths(rng, 700, 2)):
        runs = documents_of(samples).runs
        tokens = sum(map(sum, samples))
        longest = max(map(max, samples))
        assert sum(run.num_queries for run in runs) == tokens
        for run in runs:
            assert run.num_queries <= (longest if run.allowed is None else SHARED)
        for run, following in pairwise(runs):  # so that there are at most 2 * tokens / SHARED + 1 calls
            assert run.num_queries + following.num_queries > SHARED


def test_positions_begin_anew_with_each_document(rng: random.Random) -> None:
    samples = draw_lengths(rng, 90, 3)
    expected = [[place for each in lengths for place in range(each)] for lengths in samples]
    positions = documents_of(samples).positions(torch.Size((3, 90)))
    assert positions.dtype == torch.int64
    assert positions.tolist() == expected


def test_torchs_kernel_takes_what_it_is_given() -> None:
    """Here without a GPU: that this torch knows the arguments. What it computes, tests/gpu shows."""
    q, k, v = (torch.empty(50, heads, 16, dtype=torch.bfloat16, device="meta") for heads in (4, 2, 2))
    documents = Documents(np.array([0, 20, 50], np.int32), "meta")
    assert in_one_kernel(q, k, v, documents).shape == q.shape
    assert documents.queries.longest == 30
