"""Names and shapes between engines and Hugging Face: tables and index arithmetic, no tensors, no torch.

An engine holds *parts* (a fused qkv matrix, gate and up stacked, a slice of the vocabulary). Each part is a list of
row pieces of Hugging Face tensors; everything that moves weights, gradients or optimizer state goes through that list.
"""

from dataclasses import dataclass

from ...config.model import ExpertShape, ModelShape

EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
FINAL_NORM = "model.norm.weight"

_LAYER_VECTORS = {
    "input_norm": "input_layernorm.weight",
    "post_attention_norm": "post_attention_layernorm.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}


@dataclass(frozen=True, kw_only=True)
class _ExpertNames:
    """Names inside a layer, as on disk (transformers fuses experts in memory, but writes them one by one)."""

    router: str
    gate: str
    up: str
    down: str


_MIXTRAL = _ExpertNames(
    router="block_sparse_moe.gate.weight",
    gate="block_sparse_moe.experts.{}.w1.weight",
    up="block_sparse_moe.experts.{}.w3.weight",
    down="block_sparse_moe.experts.{}.w2.weight",
)
_QWEN = _ExpertNames(
    router="mlp.gate.weight",
    gate="mlp.experts.{}.gate_proj.weight",
    up="mlp.experts.{}.up_proj.weight",
    down="mlp.experts.{}.down_proj.weight",
)
_SHARED_GATE = "mlp.shared_expert_gate.weight"
_EXPERT_BIAS = "mlp.gate.e_score_correction_bias"
_INTO_RESIDUAL = ("o_proj.weight", "down_proj.weight", ".w2.weight")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows of an engine's local matrix, and the place in a Hugging Face tensor where they belong.

    Local rows [local_row, local_row + num_rows) are rows [row, row + num_rows), from column `col` on, of tensor `name`.
    """

    name: str
    local_row: int
    num_rows: int
    row: int
    col: int = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A local parameter of an engine: what it is, its layer (None outside layers), and its tensor parallel share.

    For parts of experts the share is that inside each expert, and `experts` are the global numbers of those held.
    """

    kind: str
    layer: int | None
    tensor_rank: int
    tensor_size: int
    experts: range = range(0)


def tensor_shapes(model: ModelShape) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every tensor of the model; a tied output layer has none of its own."""
    hidden, head = model.hidden_size, model.head_dim
    q_rows, kv_rows = model.num_heads * head, model.num_kv_heads * head
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (model.vocab_size, hidden)}
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q_rows, hidden),
        "self_attn.k_proj.weight": (kv_rows, hidden),
        "self_attn.v_proj.weight": (kv_rows, hidden),
        "self_attn.o_proj.weight": (hidden, q_rows),
        "post_attention_layernorm.weight": (hidden,),
    }
    if model.qk_norm:
        layer |= {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}
    if model.qkv_bias:
        layer |= {f"self_attn.{x}_proj.bias": (q_rows if x == "q" else kv_rows,) for x in "qkv"}
    for number in range(model.num_layers):
        whole = layer | _feed_forward_shapes(model, number)
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in whole.items()}
    shapes[FINAL_NORM] = (hidden,)
    if not model.tied:
        shapes[OUTPUT] = (model.vocab_size, hidden)
    return shapes


def is_expert_bias(name: str) -> bool:
    """Whether a tensor is the bias that chooses experts: no gradient moves it, and every file has it in float32."""
    return name.endswith(_EXPERT_BIAS)


def writes_into_residual(name: str) -> bool:
    """Whether a tensor is the last matrix of a block, whose product is added to the residual stream."""
    return name.endswith(_INTO_RESIDUAL)


def _feed_forward_shapes(model: ModelShape, layer: int) -> dict[str, tuple[int, ...]]:
    hidden, experts = model.hidden_size, model.experts
    if experts is None or not model.has_experts(layer):
        return _gated_shapes(
            "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight", model.ffn_size, hidden
        )
    names = _expert_names(model)
    shapes: dict[str, tuple[int, ...]] = {names.router: (experts.num_experts, hidden)}
    if experts.biased:
        shapes[_EXPERT_BIAS] = (experts.num_experts,)
    for j in range(experts.num_experts):
        gate, up, down = (name.format(j) for name in (names.gate, names.up, names.down))
        shapes |= _gated_shapes(gate, up, down, experts.ffn_size, hidden)
    if experts.shared_ffn_size is not None:
        gate, up, down = (f"{_shared_expert(experts)}{x}_proj.weight" for x in ("gate", "up", "down"))
        shapes |= _gated_shapes(gate, up, down, experts.shared_ffn_size, hidden)
        if experts.shared_gate:
            shapes[_SHARED_GATE] = (1, hidden)
    return shapes


def _gated_shapes(gate: str, up: str, down: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    return {gate: (width, hidden), up: (width, hidden), down: (hidden, width)}


def _expert_names(model: ModelShape) -> _ExpertNames:
    return _MIXTRAL if model.family == "mixtral" else _QWEN


def _shared_expert(experts: ExpertShape) -> str:
    """What the names of the shared expert begin with: Qwen2-MoE's has a gate, GLM-4.5's has none."""
    return "mlp.shared_expert." if experts.shared_gate else "mlp.shared_experts."


def pieces_of(part: Part, model: ModelShape) -> list[Piece]:
    """The pieces that make up a local parameter, in the order of its rows.

    Rows that belong to no Hugging Face tensor (the vocabulary's padding) are in no piece. Kinds: embedding, output,
    final_norm, input_norm, post_attention_norm, q_norm, k_norm, qkv, qkv_bias, attention_output, gate_up, down, and in
    layers with experts router, expert_bias, experts_gate_up, experts_down (one expert's rows after another's),
    shared_gate_up, shared_down, shared_gate.
    """
    prefix = f"model.layers.{part.layer}."
    if part.kind in ("embedding", "output"):
        return _vocabulary(part, model)
    if part.kind == "final_norm":
        return [Piece(name=FINAL_NORM, local_row=0, num_rows=model.hidden_size, row=0)]
    if part.kind in _LAYER_VECTORS:
        rows = model.head_dim if part.kind in ("q_norm", "k_norm") else model.hidden_size
        return [Piece(name=prefix + _LAYER_VECTORS[part.kind], local_row=0, num_rows=rows, row=0)]
    if part.kind in ("qkv", "qkv_bias"):
        return _qkv(part, model, prefix)
    if part.kind == "attention_output":
        width = model.num_heads * model.head_dim
        return [_columns(part, prefix + "self_attn.o_proj.weight", model.hidden_size, width)]
    if part.kind == "gate_up":
        names = (prefix + "mlp.gate_proj.weight", prefix + "mlp.up_proj.weight")
        return _gate_up(part, names, model.ffn_size)
    if part.kind == "down":
        return [_columns(part, prefix + "mlp.down_proj.weight", model.hidden_size, model.ffn_size)]
    return _expert_pieces(part, model, prefix)


def _gate_up(part: Part, names: tuple[str, str], width: int, local_row: int = 0) -> list[Piece]:
    """This rank's rows of gate, then its rows of up."""
    rows = width // part.tensor_size
    first = part.tensor_rank * rows
    return [Piece(name=name, local_row=local_row + i * rows, num_rows=rows, row=first) for i, name in enumerate(names)]


def _columns(part: Part, name: str, rows: int, width: int, local_row: int = 0) -> Piece:
    """This rank's columns of a matrix [rows, width]."""
    col = part.tensor_rank * (width // part.tensor_size)
    return Piece(name=name, local_row=local_row, num_rows=rows, row=0, col=col)


def _expert_pieces(part: Part, model: ModelShape, prefix: str) -> list[Piece]:
    experts, hidden = model.experts, model.hidden_size
    if experts is None:
        raise KeyError(part.kind)
    names, shared = _expert_names(model), prefix + _shared_expert(experts)
    if part.kind in ("router", "expert_bias"):
        name = names.router if part.kind == "router" else _EXPERT_BIAS
        return [Piece(name=prefix + name, local_row=0, num_rows=experts.num_experts, row=0)]
    if part.kind == "experts_gate_up":
        rows = 2 * (experts.ffn_size // part.tensor_size)
        both = [(prefix + names.gate.format(j), prefix + names.up.format(j)) for j in part.experts]
        return [piece for i, pair in enumerate(both) for piece in _gate_up(part, pair, experts.ffn_size, i * rows)]
    if part.kind == "experts_down":
        downs = [prefix + names.down.format(j) for j in part.experts]
        return [_columns(part, name, hidden, experts.ffn_size, i * hidden) for i, name in enumerate(downs)]
    if experts.shared_ffn_size is None:
        raise KeyError(part.kind)
    if part.kind == "shared_gate_up":
        return _gate_up(part, (shared + "gate_proj.weight", shared + "up_proj.weight"), experts.shared_ffn_size)
    if part.kind == "shared_down":
        return [_columns(part, shared + "down_proj.weight", hidden, experts.shared_ffn_size)]
    if part.kind == "shared_gate":
        return [Piece(name=prefix + _SHARED_GATE, local_row=0, num_rows=1, row=0)]
    raise KeyError(part.kind)


def padded_vocab_size(model: ModelShape, tensor_size: int) -> int:
    """Vocabulary rows that an engine holds: the next multiple of 8 x tensor parallel size."""
    multiple = 8 * tensor_size
    return -(-model.vocab_size // multiple) * multiple


def _vocabulary(part: Part, model: ModelShape) -> list[Piece]:
    rows = padded_vocab_size(model, part.tensor_size) // part.tensor_size
    first = part.tensor_rank * rows
    real = min(rows, model.vocab_size - first)
    name = OUTPUT if part.kind == "output" and not model.tied else EMBEDDING
    return [Piece(name=name, local_row=0, num_rows=real, row=first)] if real > 0 else []


def _qkv(part: Part, model: ModelShape, prefix: str) -> list[Piece]:
    """Rows [its q heads, k, v] of each key-value group follow each other; a rank holds an equal run of all those rows.

    With fewer groups than tensor ranks a run begins and ends inside a group, so the run is cut out of the whole list.
    """
    head, per_group = model.head_dim, model.num_heads // model.num_kv_heads
    suffix = "weight" if part.kind == "qkv" else "bias"
    rows = (model.num_heads + 2 * model.num_kv_heads) * head // part.tensor_size
    mine = range(part.tensor_rank * rows, (part.tensor_rank + 1) * rows)
    pieces, at = [], 0
    for group in range(model.num_kv_heads):
        for letter, heads in (("q", per_group), ("k", 1), ("v", 1)):
            start, stop = max(at, mine.start), min(at + heads * head, mine.stop)
            if start < stop:
                row = group * heads * head + start - at
                name = f"{prefix}self_attn.{letter}_proj.{suffix}"
                pieces.append(Piece(name=name, local_row=start - mine.start, num_rows=stop - start, row=row))
            at += heads * head
    return pieces
