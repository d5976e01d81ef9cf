"""The orthogonal matrix that Muon applies."""

import random

import pytest
import torch

from trainwright.parallelism.megatron.muon import orthogonal
from trainwright.storage.checkpoints.slots import by_muon, moments_of


@pytest.fixture
def rng() -> random.Random:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("shape", [(64, 64), (48, 160), (160, 48), (1, 32)])
def test_singular_values_are_brought_near_one(shape: tuple[int, int], rng: random.Random) -> None:
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    given = torch.randn(3, *shape, generator=generator) * 1e-3
    made = orthogonal(given)
    assert made.shape == given.shape
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    values = torch.linalg.svdvals(made)
    assert values.max() < 1.3
    assert values.median() > 0.6
    # The same directions as the nearest orthogonal matrix has.
    assert ((left @ right) * made).sum((-2, -1)).min() > 0.6 * min(shape)


def test_each_matrix_of_a_stack_is_done_by_itself(rng: random.Random) -> None:
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    stack = torch.randn(4, 32, 24, generator=generator)
    alone = torch.cat([orthogonal(each[None]) for each in stack])
    torch.testing.assert_close(orthogonal(stack), alone)
    assert orthogonal(torch.zeros(1, 8, 8)).abs().max() == 0


def test_which_tensors_are_muons() -> None:
    layer = "model.layers.3."
    for name in (
        "self_attn.q_proj",
        "self_attn.o_proj",
        "mlp.down_proj",
        "mlp.experts.7.up_proj",
        "mlp.shared_expert.gate_proj",
    ):
        assert by_muon("muon", f"{layer}{name}.weight")
        assert not by_muon("adamw", f"{layer}{name}.weight")
    assert by_muon("muon", layer + "block_sparse_moe.experts.0.w2.weight")
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert not by_muon("muon", name)
    for name in ("mlp.gate.weight", "self_attn.q_proj.bias", "mlp.shared_expert_gate.weight", "input_layernorm.weight"):
        assert moments_of("muon", [layer + name]) == ("exp_avg", "exp_avg_sq")
