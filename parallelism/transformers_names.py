"""What each parameter of transformers' own model is, as pieces of tensors under the names that files have.

Files name experts one by one; since transformers 5 a model in memory has those of a layer stacked.
"""

import re

from ..config.model import ModelShape
from ..storage.checkpoints.rectangles import matrix_shape
from ..storage.checkpoints.tensor_names import Part, Piece, pieces_of, tensor_shapes

_STACKED = re.compile(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.(gate_up_proj|down_proj)")
_ROUTER = re.compile(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.gate\.weight")
_SHARED_ROWS = re.compile(r".*\.(?:self_attn\.[qkv]_proj\.(?:weight|bias)|mlp\.(?:gate|up)_proj\.weight)")
_SHARED_COLUMNS = re.compile(r".*\.(?:self_attn\.o_proj|mlp\.down_proj)\.weight")
_KINDS = {"gate_up_proj": "experts_gate_up", "down_proj": "experts_down"}


def is_shared(name: str) -> bool:
    """Whether tensor ranks share a parameter of a dense model; of all others each has a copy."""
    return bool(_SHARED_ROWS.fullmatch(name) or _SHARED_COLUMNS.fullmatch(name))


def pieces_of_parameter(name: str, model: ModelShape, tensor_rank: int = 0, tensor_size: int = 1) -> list[Piece]:
    """The pieces of a parameter of AutoModelForCausalLM, its rows laid flat as [-1, last dim]. KeyError if unknown.

    Of a dense model also those of one tensor rank's share.
    """
    shapes = tensor_shapes(model)
    if name in shapes:
        rows, cols = matrix_shape(shapes[name])
        if _SHARED_ROWS.fullmatch(name):
            rows //= tensor_size
            return [Piece(name=name, local_row=0, num_rows=rows, row=tensor_rank * rows)]
        col = tensor_rank * (cols // tensor_size) if _SHARED_COLUMNS.fullmatch(name) else 0
        return [Piece(name=name, local_row=0, num_rows=rows, row=0, col=col)]
    stacked, router = _STACKED.fullmatch(name), _ROUTER.fullmatch(name)
    if model.experts is None or not (stacked or router):
        raise KeyError(name)
    if router:
        return pieces_of(Part(kind="router", layer=int(router.group(1)), tensor_rank=0, tensor_size=1), model)
    assert stacked
    part = Part(
        kind=_KINDS[stacked.group(2)],
        layer=int(stacked.group(1)),
        tensor_rank=0,
        tensor_size=1,
        experts=range(model.experts.num_experts),
    )
    return pieces_of(part, model)
