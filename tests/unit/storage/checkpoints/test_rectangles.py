"""Cutting flat ranges and matrices, and the tables from engine parts to Hugging Face tensors."""

import random
from dataclasses import replace

import numpy as np
import pytest

from trainwright.config.model import ExpertShape, ModelShape
from trainwright.storage.checkpoints.rectangles import Rectangle, rectangles_of_flat_range
from trainwright.storage.checkpoints.tensor_names import Part, padded_vocab_size, pieces_of, tensor_shapes

KINDS = (
    "input_norm",
    "post_attention_norm",
    "q_norm",
    "k_norm",
    "qkv",
    "qkv_bias",
    "attention_output",
    "gate_up",
    "down",
)
COLUMN_SPLIT = ("attention_output", "down")


def model(num_heads: int = 8, num_kv_heads: int = 2, vocab_size: int = 331, tied: bool = False) -> ModelShape:
    return ModelShape(
        family="qwen3",
        num_layers=2,
        hidden_size=24,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=6,
        ffn_size=40,
        vocab_size=vocab_size,
        rope_theta=1e4,
        norm_eps=1e-6,
        tied=tied,
        qk_norm=True,
        qkv_bias=True,
        max_positions=64,
        init_std=0.02,
    )


def test_flat_range_is_cut_into_at_most_three_that_cover_it_once() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(2000):
        rows, cols = draw.randint(1, 9), draw.randint(1, 9)
        flat = range(*sorted((draw.randint(0, rows * cols), draw.randint(0, rows * cols))))
        first = draw.randint(0, rows - 1)
        window = range(first, draw.randint(first + 1, rows))
        parts = rectangles_of_flat_range(window, cols, flat)
        assert len(parts) <= 3
        count = np.zeros((rows, cols), int)
        for part in parts:
            count[part.row : part.row + part.num_rows, part.col : part.col + part.num_cols] += 1
        expected = np.zeros((rows, cols), int)
        expected.reshape(-1)[flat.start : flat.stop] = 1
        expected[: window.start] = expected[window.stop :] = 0
        assert (count == expected).all()


def test_overlap() -> None:
    one = Rectangle(row=2, num_rows=3, col=1, num_cols=4)
    assert one.overlap(Rectangle(row=4, num_rows=9, col=0, num_cols=2)) == Rectangle(
        row=4, num_rows=1, col=1, num_cols=1
    )
    assert one.overlap(Rectangle(row=5, num_rows=1, col=1, num_cols=1)) is None
    assert one.overlap(one) == one


@pytest.mark.parametrize(
    ("tensor", "heads", "kv_heads"), [(1, 8, 2), (2, 8, 2), (4, 8, 2), (8, 8, 2), (2, 4, 4), (4, 8, 1)]
)
def test_parts_of_all_ranks_cover_every_tensor_once(tensor: int, heads: int, kv_heads: int) -> None:
    """Over tensor ranks, the pieces of all parts are a partition of the model, and local rows never overlap."""
    shape = model(heads, kv_heads)
    shapes = tensor_shapes(shape)
    count = {name: np.zeros(size if len(size) == 2 else (*size, 1), int) for name, size in shapes.items()}
    for rank in range(tensor):
        parts = [
            Part(kind=kind, layer=layer, tensor_rank=rank, tensor_size=tensor) for kind in KINDS for layer in (0, 1)
        ]
        outside = ("embedding", "output", "final_norm")
        parts += [Part(kind=kind, layer=None, tensor_rank=rank, tensor_size=tensor) for kind in outside]
        for part in parts:
            if part.kind.endswith("norm") and rank > 0:
                continue  # replicas
            seen: set[int] = set()
            for piece in pieces_of(part, shape):
                rows = range(piece.local_row, piece.local_row + piece.num_rows)
                assert not seen & set(rows)
                seen |= set(rows)
                target = count[piece.name]
                cols = target.shape[1] // (tensor if part.kind in COLUMN_SPLIT else 1)
                target[piece.row : piece.row + piece.num_rows, piece.col : piece.col + cols] += 1
    assert all((covered == 1).all() for covered in count.values())


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "glm4_moe"])
@pytest.mark.parametrize(("tensor", "expert", "expert_tensor"), [(1, 1, 1), (1, 4, 1), (2, 2, 1), (2, 1, 2), (2, 2, 2)])
def test_parts_of_experts_cover_every_tensor_once(family: str, tensor: int, expert: int, expert_tensor: int) -> None:
    """Also the shared expert's, which are split as dense ones are."""
    shared, biased = (None if family == "mixtral" else 20), family == "glm4_moe"
    experts = ExpertShape(
        num_experts=4,
        num_active=2,
        ffn_size=8,
        shared_ffn_size=shared,
        normalized=True,
        aux_loss_coef=0.0,
        layers=(1,),
        shared_gate=family == "qwen2_moe",
        biased=biased,
    )
    shape = replace(model(), family=family, experts=experts)
    mine = ("block_sparse_moe.", "mlp.")
    shapes = {name: size for name, size in tensor_shapes(shape).items() if name.startswith("model.layers.1.")}
    count = {name: np.zeros(size, int) for name, size in shapes.items() if name.split(".", 3)[3].startswith(mine)}
    assert len(count) == 1 + 3 * 4 + (4 if shared else 0)
    if biased:
        count = {name: each.reshape(len(each), -1) for name, each in count.items()}

    def cover(part: Part, splits: int) -> None:
        seen: set[int] = set()
        for piece in pieces_of(part, shape):
            rows = range(piece.local_row, piece.local_row + piece.num_rows)
            assert not seen & set(rows)
            seen |= set(rows)
            cols = count[piece.name].shape[1] // splits
            count[piece.name][piece.row : piece.row + piece.num_rows, piece.col : piece.col + cols] += 1

    def dense(kind: str, rank: int, splits: int = 1) -> None:
        cover(Part(kind=kind, layer=1, tensor_rank=rank, tensor_size=tensor), splits)

    dense("router", 0)
    if biased:
        dense("expert_bias", 0)
    if shared:
        if not biased:
            dense("shared_gate", 0)
        for rank in range(tensor):
            dense("shared_gate_up", rank)
            dense("shared_down", rank, tensor)
    for share in range(expert):
        for rank in range(expert_tensor):
            held = range(share * 4 // expert, (share + 1) * 4 // expert)
            for kind, splits in (("experts_gate_up", 1), ("experts_down", expert_tensor)):
                part = Part(kind=kind, layer=1, tensor_rank=rank, tensor_size=expert_tensor, experts=held)
                cover(part, splits)
    assert all((covered == 1).all() for covered in count.values())


def test_qkv_rows_are_grouped_as_megatron_wants_them() -> None:
    """Eight heads, two groups, four ranks: rank 1 holds the last query head of group 0, then its k and v."""
    pieces = pieces_of(Part(kind="qkv", layer=0, tensor_rank=1, tensor_size=4), model())
    names = [(piece.name.split(".")[-2], piece.local_row, piece.num_rows, piece.row) for piece in pieces]
    assert names == [("q_proj", 0, 6, 18), ("k_proj", 6, 6, 0), ("v_proj", 12, 6, 0)]


def test_padding_of_the_vocabulary_belongs_to_no_tensor() -> None:
    shape = model(vocab_size=9)
    assert padded_vocab_size(shape, 4) == 32
    last = pieces_of(Part(kind="embedding", layer=None, tensor_rank=3, tensor_size=4), shape)
    second = pieces_of(Part(kind="embedding", layer=None, tensor_rank=1, tensor_size=4), shape)
    assert last == []
    assert [(piece.row, piece.num_rows) for piece in second] == [(8, 1)]


def test_tied_output_is_the_embedding() -> None:
    shape = model(tied=True)
    assert "lm_head.weight" not in tensor_shapes(shape)
    (piece,) = pieces_of(Part(kind="output", layer=None, tensor_rank=0, tensor_size=1), shape)
    assert piece.name == "model.embed_tokens.weight"
