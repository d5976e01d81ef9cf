"""What each parameter of transformers' own model is, as pieces of tensors under the names that files have.

Files name experts one by one; since transformers 5 a model in memory has those of a layer stacked.
"""

import re

from ..config.model import ModelShape
from ..storage.checkpoints.rectangles import matrix_shape
from ..storage.checkpoints.tensor_names import Part, Piece, pieces_of, tensor_shapes

_STACKED = re.compile(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.(gate_up_proj|down_proj)")
_ROUTER = re.compile(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.gate\.weight")
_KINDS = {"gate_up_proj": "experts_gate_up", "down_proj": "experts_down"}


def pieces_of_parameter(name: str, model: ModelShape) -> list[Piece]:
    """The pieces of a parameter of AutoModelForCausalLM, its rows laid flat as [-1, last dim]. KeyError if unknown."""
    shapes = tensor_shapes(model)
    if name in shapes:
        return [Piece(name=name, local_row=0, num_rows=matrix_shape(shapes[name])[0], row=0)]
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
