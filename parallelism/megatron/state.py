"""Weights and optimizer state of a megatron-core engine as rectangles of Hugging Face tensors, out and in.

Imported only after compat.prepare().
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from ...config.layout import Coordinates, Layout
from ...config.model import ModelShape
from ...storage.checkpoints.checkpoint_writer import OwnedRectangle
from ...storage.checkpoints.slots import by_muon, moments_of
from ...storage.checkpoints.tensor_names import Part, Piece, pieces_of, tensor_shapes
from ...storage.checkpoints.tensor_source import WEIGHT, TensorSource
from ..compat import set_adam_step
from ..engine import GRADIENT
from ..local_tensors import assemble, cut, matrix_of, on_host
from .model import part_of
from .muon import Matrix, WithMuon


@dataclass(frozen=True, kw_only=True)
class _Local:
    """A parameter of this rank, its pieces, and the flat range whose state this rank's optimizer has.

    `main` is the float32 tensor that the optimizer updates: flat [len(flat)] or the parameter's own shape.
    """

    parameter: torch.nn.Parameter
    part: Part
    pieces: list[Piece]
    main: torch.Tensor
    flat: range
    optimizer: Any
    group: dict[str, Any]
    written_here: bool


class MegatronState:
    """Reads and writes the state of a rank's model chunks and their optimizer."""

    def __init__(
        self,
        chunks: Sequence[torch.nn.Module],
        optimizer: Any,
        model: ModelShape,
        layout: Layout,
        place: Coordinates,
        kind: str,
    ) -> None:
        """`kind` is the run's train.optimizer.name."""
        self._chunks, self._model, self._layout, self._place, self._kind = chunks, model, layout, place, kind
        self._optimizers = getattr(optimizer, "chained_optimizers", [optimizer])

    def load(self, source: TensorSource, optimizer_steps: int) -> None:
        """Fill parameters, main parameters and Adam's slots; the vocabulary's padding becomes 0."""
        for chunk, name, parameter in self._parameters():
            pieces = pieces_of(self._part(chunk, name), self._model)
            weights = torch.from_numpy(assemble(source, WEIGHT, pieces, tuple(parameter.shape)))
            with torch.no_grad():
                parameter.copy_(weights.view(parameter.shape))
        for pieces, bias in self._expert_biases():
            # Anew, since a model in bfloat16 has made it one too.
            bias.data = torch.from_numpy(assemble(source, WEIGHT, pieces, tuple(bias.shape))).view(-1).to(bias.device)
        for local in self._locals():
            self._load_optimizer(local, source, optimizer_steps)

    def use_muon(self, beta: float) -> None:
        """Let Muon update the matrices that are its, in each of the optimizers that have them."""
        for optimizer in self._optimizers:
            matrices = [self._muon_matrix(local) for local in self._locals() if local.optimizer is optimizer.optimizer]
            found = [matrix for matrix in matrices if matrix is not None]
            optimizer.optimizer = WithMuon(optimizer.optimizer, found, tensor_shapes(self._model), beta)

    def _muon_matrix(self, local: _Local) -> Matrix | None:
        if not local.pieces or not by_muon(self._kind, local.pieces[0].name):
            return None
        part = local.part
        return Matrix(
            main=local.main,
            group=local.group,
            shape=matrix_of(tuple(local.parameter.shape)),
            pieces=[pieces_of(replace(part, tensor_rank=rank), self._model) for rank in range(part.tensor_size)],
            own=part.tensor_rank,
            ranks=_sharing_ranks(local.parameter),
        )

    def owned(self) -> Iterator[OwnedRectangle]:
        """The rectangles of weights and slots that this rank writes; float32 copies on the CPU."""
        for local in self._locals():
            if not local.written_here:
                continue
            for slot, tensor in self._slots(local):
                yield from _cut(slot, tensor, local)
        if self._place.tensor == self._place.data == self._place.context == 0:
            for pieces, bias in self._expert_biases():
                yield from cut(WEIGHT, on_host(bias), range(bias.numel()), tuple(bias.shape), pieces)

    def gradients(self) -> Iterator[OwnedRectangle]:
        """This rank's rectangles of the gradient that the optimizer was given."""
        for local in self._locals():
            if local.written_here:
                gradient = local.main.grad
                yield from _cut(GRADIENT, torch.zeros_like(local.main) if gradient is None else gradient, local)

    def _locals(self) -> Iterator[_Local]:
        for chunk, name, parameter in self._parameters():
            for optimizer in self._optimizers:
                found = _main_parameter(optimizer, parameter)
                if found is None:
                    continue
                main, flat, group = found
                part = self._part(chunk, name)
                yield _Local(
                    parameter=parameter,
                    part=part,
                    pieces=pieces_of(part, self._model),
                    main=main,
                    flat=flat,
                    optimizer=optimizer.optimizer,
                    group=group,
                    written_here=self._written_here(name, parameter, optimizer),
                )

    def _parameters(self) -> Iterator[tuple[int, str, torch.nn.Parameter]]:
        for chunk, module in enumerate(self._chunks):
            for name, parameter in module.named_parameters():
                yield chunk, name, parameter

    def _expert_biases(self) -> Iterator[tuple[list[Piece], torch.Tensor]]:
        """The routers' biases, of which every rank of a stage has a copy."""
        for chunk, module in enumerate(self._chunks):
            for name, buffer in module.named_buffers():
                if name.endswith(".expert_bias"):
                    yield pieces_of(self._part(chunk, name), self._model), buffer

    def _part(self, chunk: int, name: str) -> Part:
        return part_of(name, chunk, self._layout, self._place, self._model)

    def _written_here(self, name: str, parameter: torch.nn.Parameter, optimizer: Any) -> bool:
        """One writer per element: replicas over tensor, context, data and (if tied) pipeline ranks stay silent."""
        if not getattr(parameter, "allreduce", True):  # experts: copies lie on their own data parallel ranks
            return _is_distributed(optimizer) or self._place.expert_data == 0
        shared_copy = self._model.tied and name == "output_layer.weight"
        sharded = getattr(parameter, "tensor_model_parallel", False) or self._place.tensor == 0
        first_copy = self._place.data == self._place.context == 0
        return not shared_copy and sharded and (_is_distributed(optimizer) or first_copy)

    def _slots(self, local: _Local) -> Iterator[tuple[str, torch.Tensor]]:
        yield WEIGHT, local.main
        state = local.optimizer.state[local.main]
        for slot in self._moments(local):
            yield slot, state[slot]

    def _moments(self, local: _Local) -> tuple[str, ...]:
        return moments_of(self._kind, [piece.name for piece in local.pieces])

    def _load_optimizer(self, local: _Local, source: TensorSource, steps: int) -> None:
        """Main parameter and slots: only the flat range that this rank's optimizer has."""
        state = local.optimizer.state[local.main]
        for slot in (WEIGHT, *self._moments(local)):
            values = assemble(source, slot, local.pieces, tuple(local.parameter.shape)).reshape(-1)
            part = torch.from_numpy(values[local.flat.start : local.flat.stop]).view(local.main.shape)
            if slot == WEIGHT:
                local.main.data.copy_(part)
            else:
                state[slot] = part.to(local.main.device, torch.float32, copy=True)
        adamw = local.optimizer.adamw if isinstance(local.optimizer, WithMuon) else local.optimizer
        set_adam_step(adamw, state, local.group, steps)


def _sharing_ranks(parameter: torch.nn.Parameter) -> dist.ProcessGroup:
    """The ranks that share a matrix: the tensor parallel ones, or those inside each expert."""
    dense = getattr(parameter, "allreduce", True)
    group: dist.ProcessGroup = (
        parallel_state.get_tensor_model_parallel_group() if dense else parallel_state.get_expert_tensor_parallel_group()
    )
    return group


def _is_distributed(optimizer: Any) -> bool:
    return hasattr(optimizer, "model_param_gbuf_map")


_Main = tuple[torch.Tensor, range, dict[str, Any]]


def _main_parameter(optimizer: Any, parameter: torch.nn.Parameter) -> _Main | None:
    """(main parameter, its flat range of the local parameter, its group), or None if this optimizer has none of it."""
    if _is_distributed(optimizer):
        if parameter not in optimizer.model_param_gbuf_map or parameter not in optimizer.model_param_group_index_map:
            return None
        span = optimizer._get_model_param_range_map(parameter)["param"]
        group_number, number = optimizer.model_param_group_index_map[parameter]
        group = optimizer.optimizer.param_groups[group_number]
        return group["params"][number], range(span.start, span.end), group
    main = getattr(parameter, "main_param", parameter)
    for group in optimizer.optimizer.param_groups:
        if any(candidate is main for candidate in group["params"]):
            return main, range(parameter.numel()), group
    return None


def _cut(slot: str, tensor: torch.Tensor, local: _Local) -> Iterator[OwnedRectangle]:
    return cut(slot, on_host(tensor), local.flat, tuple(local.parameter.shape), local.pieces)
