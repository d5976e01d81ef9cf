"""What each parameter of transformers' own model is, as pieces of tensors under the names that files have.

Files name experts one by one; since transformers 5 a model in memory has those of a layer stacked, and DeepSpeed's
AutoEP has a rank's share of them, gate and up apart.
"""

import re
from dataclasses import dataclass

from ..config.model import ModelShape
from ..storage.checkpoints.rectangles import matrix_shape
from ..storage.checkpoints.tensor_names import Part, Piece, pieces_of, tensor_shapes

_LAYER = r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\."
_STACKED = re.compile(_LAYER + r"experts\.(gate_up_proj|down_proj|w1|w2|w3)")
_ROUTER = re.compile(_LAYER + r"(?:router\.)?gate\.weight")
_SHARED_EXPERT = re.compile(r"\.shared_experts(_gate)?\.")
_SHARED_ROWS = re.compile(r".*\.(?:self_attn\.[qkv]_proj\.(?:weight|bias)|mlp\.(?:gate|up)_proj\.weight)")
_SHARED_COLUMNS = re.compile(r".*\.(?:self_attn\.o_proj|mlp\.down_proj)\.weight")
_OF_EXPERT = {"w1": 0, "w3": 1, "w2": 2}
"""AutoEP's names to the places of gate, up and down."""


@dataclass(frozen=True)
class Share:
    """What one rank has of the model; by default all of it."""

    tensor_rank: int = 0
    tensor_size: int = 1
    """Tensor ranks share the matrices of dense layers."""
    experts: range | None = None
    """Numbers of the experts of each layer; None: all."""


def is_split(name: str) -> bool:
    """Whether tensor ranks share a parameter of a dense model; of all others each has a copy."""
    return bool(_SHARED_ROWS.fullmatch(name) or _SHARED_COLUMNS.fullmatch(name))


def is_of_experts(name: str) -> bool:
    """Whether a parameter is a stack of experts."""
    return bool(_STACKED.fullmatch(name))


def pieces_of_parameter(name: str, model: ModelShape, share: Share | None = None) -> list[Piece]:
    """The pieces of a parameter of AutoModelForCausalLM, its rows laid flat as [-1, last dim]. KeyError if unknown."""
    share, shapes = share or Share(), tensor_shapes(model)
    if name not in shapes:
        name = _SHARED_EXPERT.sub(r".shared_expert\1.", name)  # AutoEP's plural
    if name in shapes:
        return [_piece(name, matrix_shape(shapes[name]), share)]
    stacked, router = _STACKED.fullmatch(name), _ROUTER.fullmatch(name)
    if model.experts is None or not (stacked or router):
        raise KeyError(name)
    if router:
        return pieces_of(Part(kind="router", layer=int(router.group(1)), tensor_rank=0, tensor_size=1), model)
    assert stacked
    experts = range(model.experts.num_experts) if share.experts is None else share.experts
    return _of_experts(int(stacked.group(1)), stacked.group(2), experts, model)


def _piece(name: str, shape: tuple[int, int], share: Share) -> Piece:
    rows, cols = shape
    if _SHARED_ROWS.fullmatch(name):
        rows //= share.tensor_size
        return Piece(name=name, local_row=0, num_rows=rows, row=share.tensor_rank * rows)
    col = share.tensor_rank * (cols // share.tensor_size) if _SHARED_COLUMNS.fullmatch(name) else 0
    return Piece(name=name, local_row=0, num_rows=rows, row=0, col=col)


def _of_experts(layer: int, kind: str, experts: range, model: ModelShape) -> list[Piece]:
    """Of gate and up stacked, of down, or of one of the three apart."""

    def parts(part: str) -> list[Piece]:
        return pieces_of(Part(kind=part, layer=layer, tensor_rank=0, tensor_size=1, experts=experts), model)

    if kind in ("down_proj", "w2"):
        return parts("experts_down")
    both = parts("experts_gate_up")
    if kind == "gate_up_proj":
        return both
    mine = both[_OF_EXPERT[kind] :: 2]
    return [
        Piece(name=piece.name, local_row=number * piece.num_rows, num_rows=piece.num_rows, row=piece.row)
        for number, piece in enumerate(mine)
    ]
