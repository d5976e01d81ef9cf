"""From other tools' names and layouts to Hugging Face's: one function for each, which makes a model's tensors.

Each gives a maker by Hugging Face name, and the names that it used. The sources hold whole tensors: no ranks' shares.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...config.model import ModelShape
from ..checkpoints.rectangles import matrix_shape
from ..checkpoints.tensor_names import EMBEDDING, FINAL_NORM, OUTPUT, Part, Piece, pieces_of, tensor_shapes

Array = NDArray[np.float32]
Makers = dict[str, Callable[[], Array]]
Shapes = Mapping[str, tuple[int, ...]]


class Tensors(Protocol):
    """A checkpoint of whole tensors."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        ...

    def read(self, name: str) -> Array:
        """A tensor as float32."""
        ...


def makers_of(source: Tensors, model: ModelShape) -> tuple[str, Makers, set[str]]:
    """What wrote the checkpoint, a maker for each tensor of the model that it has, and the names that these need.

    Raises KeyError if its names are nobody's that are known here.
    """
    shapes = source.shapes()
    for kind, embedding, make in _KINDS:
        prefix = _prefix(shapes, embedding)
        if prefix is not None:
            return kind, *make(_Cached(source), prefix, model)
    raise KeyError("no embedding under a known name")


class _Cached:
    """Stacked layers are read once for all of them."""

    def __init__(self, source: Tensors) -> None:
        self.shapes = source.shapes()
        self.read = lru_cache(maxsize=2)(source.read)


def _prefix(shapes: Shapes, name: str) -> str | None:
    """What stands before a name in the checkpoint."""
    found = [each.removesuffix(name) for each in shapes if each == name or each.endswith(f".{name}")]
    weights = [prefix for prefix in found if not re.search(r"optim|exp_avg", prefix)]
    return min(weights, key=len) if weights else None


def _hugging_face(source: _Cached, prefix: str, model: ModelShape) -> tuple[Makers, set[str]]:
    """Their own names; experts by themselves, or fused as transformers 5 holds them in memory."""
    makers: Makers = {}
    used = set()
    for name in tensor_shapes(model):
        stored, fused = prefix + name, _fused_expert(prefix, name, model)
        if stored in source.shapes:
            makers[name] = partial(source.read, stored)
            used.add(stored)
        elif fused and fused[0] in source.shapes:
            makers[name] = partial(_expert, source, *fused)
            used.add(fused[0])
    if model.tied and prefix + OUTPUT in source.shapes:
        used.add(prefix + OUTPUT)  # a copy of the embedding
    return makers, used


def _fused_expert(prefix: str, name: str, model: ModelShape) -> tuple[str, int, slice] | None:
    """The fused tensor of transformers 5 that holds one expert's matrix, its number, and its rows in it."""
    found = re.fullmatch(r"(model\.layers\.\d+\.)(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight", name)
    if found is None or model.experts is None:
        return None
    width = model.experts.ffn_size
    layer, number, matrix = found[1], int(found[2]), found[3]
    if matrix in ("down_proj", "w2"):
        return f"{prefix}{layer}mlp.experts.down_proj", number, slice(None)
    rows = slice(0, width) if matrix in ("gate_proj", "w1") else slice(width, 2 * width)
    return f"{prefix}{layer}mlp.experts.gate_up_proj", number, rows


def _expert(source: "_Cached", stored: str, number: int, rows: slice) -> Array:
    matrix: Array = source.read(stored)[number][rows]
    return matrix


_TITAN = {
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "attention.q_norm.weight": "self_attn.q_norm.weight",
    "attention.k_norm.weight": "self_attn.k_norm.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
}


def _torchtitan(source: _Cached, prefix: str, model: ModelShape) -> tuple[Makers, set[str]]:
    """torchtitan's dense models. Its Llama turns pairs of neighbours, Hugging Face's halves of a head."""
    names = {EMBEDDING: "tok_embeddings.weight", FINAL_NORM: "norm.weight", OUTPUT: "output.weight"}
    for layer in range(model.num_layers):
        names |= {f"model.layers.{layer}.{theirs}": f"layers.{layer}.{ours}" for ours, theirs in _TITAN.items()}
    makers: Makers = {}
    for name in tensor_shapes(model):
        stored = prefix + names.get(name, name)
        if stored not in source.shapes:
            continue
        turned = model.family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight"))
        makers[name] = partial(_halves, source, stored, model.head_dim) if turned else partial(source.read, stored)
    used = {prefix + names.get(name, name) for name in makers}
    if model.tied and prefix + names[OUTPUT] in source.shapes:
        used.add(prefix + names[OUTPUT])
    return makers, used


def _halves(source: _Cached, stored: str, head: int) -> Array:
    """Rows of each head: those at even places first, then those at odd ones."""
    matrix = source.read(stored)
    rows, cols = matrix.shape
    return np.ascontiguousarray(matrix.reshape(rows // head, head // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols))


_MEGATRON_LAYER: dict[str, tuple[str, ...]] = {
    "input_norm": ("input_layernorm.weight", "self_attention.linear_qkv.layer_norm_weight"),
    "qkv": ("self_attention.linear_qkv.weight",),
    "qkv_bias": ("self_attention.linear_qkv.bias",),
    "q_norm": ("self_attention.q_layernorm.weight",),
    "k_norm": ("self_attention.k_layernorm.weight",),
    "attention_output": ("self_attention.linear_proj.weight",),
    "post_attention_norm": ("pre_mlp_layernorm.weight", "mlp.linear_fc1.layer_norm_weight"),
    "gate_up": ("mlp.linear_fc1.weight",),
    "down": ("mlp.linear_fc2.weight",),
    "router": ("mlp.router.weight",),
    "expert_bias": ("mlp.router.expert_bias",),
    "experts_gate_up": ("mlp.experts.experts.linear_fc1.weight",),
    "experts_down": ("mlp.experts.experts.linear_fc2.weight",),
    "shared_gate_up": ("mlp.shared_experts.linear_fc1.weight",),
    "shared_down": ("mlp.shared_experts.linear_fc2.weight",),
    "shared_gate": ("mlp.shared_experts.gate_weight",),
}


def _megatron(source: _Cached, prefix: str, model: ModelShape) -> tuple[Makers, set[str]]:
    """megatron-core's dist_checkpointing: layers stacked or by number, experts stacked, the vocabulary padded."""
    parts: dict[str, list[_Place]] = {}
    used = set()

    def take(stored: str, place: tuple[int, ...], part: Part) -> None:
        used.add(stored)
        for piece in pieces_of(part, model):
            parts.setdefault(piece.name, []).append((stored, place, piece))

    alone = {"embedding": "embedding.word_embeddings.weight", "output": "output_layer.weight"}
    alone["final_norm"] = "decoder.final_layernorm.weight"
    for kind, name in alone.items():
        if prefix + name in source.shapes and not (kind == "output" and model.tied):
            take(prefix + name, (), Part(kind=kind, layer=None, tensor_rank=0, tensor_size=1))
        elif prefix + name in source.shapes:
            used.add(prefix + name)
    for layer in range(model.num_layers):
        for kind, names in _MEGATRON_LAYER.items():
            for name in names:
                for stored, place in ((f"decoder.layers.{name}", (layer,)), (f"decoder.layers.{layer}.{name}", ())):
                    if prefix + stored in source.shapes:
                        _take_layer(take, prefix + stored, place, kind, layer, model)
    shapes = tensor_shapes(model)
    makers: Makers = {}
    for name, places in parts.items():
        if name in shapes and sum(piece.num_rows for _, _, piece in places) == shapes[name][0]:
            makers[name] = partial(_assembled, source, places, shapes[name])
    return makers, used


_Place = tuple[str, tuple[int, ...], Piece]
"""Name of a stored tensor, which of what is stacked in it, and the rows."""


def _take_layer(
    take: Callable[[str, tuple[int, ...], Part], None],
    stored: str,
    place: tuple[int, ...],
    kind: str,
    layer: int,
    model: ModelShape,
) -> None:
    """One parameter of a layer; of experts each by itself."""
    if kind in ("gate_up", "down") and model.has_experts(layer):
        return
    if not kind.startswith("experts_"):
        take(stored, place, Part(kind=kind, layer=layer, tensor_rank=0, tensor_size=1))
    elif model.experts is not None:
        for number in range(model.experts.num_experts):
            part = Part(kind=kind, layer=layer, tensor_rank=0, tensor_size=1, experts=range(number, number + 1))
            take(stored, (*place, number), part)


def _assembled(source: _Cached, places: list["_Place"], shape: tuple[int, ...]) -> Array:
    """A tensor of the rows of other tensors that it is made of."""
    out = np.empty(matrix_shape(shape), np.float32)
    for stored, place, piece in places:
        local = source.read(stored)[place] if place else source.read(stored)
        rows = local.reshape(local.shape[0], -1)[piece.local_row : piece.local_row + piece.num_rows]
        out[piece.row : piece.row + piece.num_rows] = rows
    return out.reshape(shape)


_KINDS: tuple[tuple[str, str, Callable[[_Cached, str, ModelShape], tuple[Makers, set[str]]]], ...] = (
    ("Hugging Face names", EMBEDDING, _hugging_face),
    ("torchtitan", "tok_embeddings.weight", _torchtitan),
    ("megatron-core", "embedding.word_embeddings.weight", _megatron),
)
