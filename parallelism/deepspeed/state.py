"""Weights, moments and gradients of a DeepSpeed engine as rectangles of Hugging Face tensors, out and in.

Under ZeRO each rank has the float32 weights and moments of a flat range of every parameter; it writes just
those, so nothing is gathered, and reads one tensor after another.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ...config.model import ModelShape
from ...storage.checkpoints.adapters import is_adapter
from ...storage.checkpoints.checkpoint_writer import OwnedRectangle
from ...storage.checkpoints.slots import moments_of
from ...storage.checkpoints.tensor_names import Piece, is_expert_bias
from ...storage.checkpoints.tensor_source import WEIGHT, TensorSource
from ..engine import GRADIENT
from ..local_tensors import assemble, cut, on_host
from ..transformers_names import Share, is_split, pieces_of_parameter
from .adapters import file_name

MOMENTS = moments_of("adamw", [])


class ZeroState(ABC):
    """Reads and writes one rank's share of the state."""

    def __init__(self, module: Any, optimizer: Any, model: ModelShape, share: Share) -> None:
        """`optimizer` is DeepSpeed's, around torch's AdamW; `share` is what this rank has."""
        self._named = list(module.named_parameters())
        self._biases = [(name, bias) for name, bias in module.named_buffers() if is_expert_bias(name)]
        self._optimizer, self._model, self._share = optimizer, model, share

    def load(self, source: TensorSource, optimizer_steps: int) -> None:
        """Fill weights, float32 weights and moments; AdamW goes on as after `optimizer_steps` updates."""
        self._make_moments(optimizer_steps)
        for name, parameter in self._named:
            shape, pieces = _shape(parameter), self._pieces(name, parameter)
            for slot in (WEIGHT, *MOMENTS) if parameter.requires_grad else (WEIGHT,):
                values = torch.from_numpy(assemble(source, slot, pieces, shape).reshape(-1))
                if parameter.requires_grad:
                    self._put(parameter, slot, values)
                else:
                    self._put_frozen(parameter, values)
        for name, bias in self._biases:
            values = torch.from_numpy(assemble(source, WEIGHT, self._pieces(name, bias), _shape(bias)))
            bias.data = values.view(-1).to(bias.device)  # float32, whatever it was cast to

    def owned(self) -> Iterator[OwnedRectangle]:
        """The rectangles of weights and moments that this rank has; float32 copies on the CPU."""
        yield from self._cut((WEIGHT, *MOMENTS))
        with_adapters = any(is_adapter(file_name(name)) for name, _ in self._named)
        if dist.get_rank() == 0 and not with_adapters:
            for name, bias in self._biases:
                yield from cut(WEIGHT, on_host(bias), range(bias.numel()), _shape(bias), self._pieces(name, bias))

    def gradients(self) -> Iterator[OwnedRectangle]:
        """This rank's rectangles of the gradient: after the last backward pass, before the step."""
        return self._cut((GRADIENT,))

    def _cut(self, slots: tuple[str, ...]) -> Iterator[OwnedRectangle]:
        for name, parameter in self._named:
            flat = self._range(parameter) if parameter.requires_grad else range(0)
            if not flat or (self._share.tensor_rank and not is_split(name)):
                continue
            pieces = self._pieces(name, parameter)
            for slot in slots:
                values = on_host(self._get(parameter, slot))[: len(flat)]
                yield from cut(slot, np.ascontiguousarray(values), flat, _shape(parameter), pieces)

    def _pieces(self, name: str, parameter: Any) -> list[Piece]:
        name = file_name(name)
        if is_adapter(name):
            return [Piece(name=name, local_row=0, num_rows=_shape(parameter)[0], row=0)]
        return pieces_of_parameter(name, self._model, self._share)

    @abstractmethod
    def _put_frozen(self, parameter: Any, values: torch.Tensor) -> None:
        """Take a weight that is not trained, or this rank's range of it, out of a whole tensor, flat."""

    @abstractmethod
    def _make_moments(self, steps: int) -> None:
        """Give torch's AdamW its moments, as if it had made so many steps."""

    @abstractmethod
    def _range(self, parameter: Any) -> range:
        """The flat range of a parameter that this rank has; empty if none."""

    @abstractmethod
    def _get(self, parameter: Any, slot: str) -> torch.Tensor:
        """This rank's range in a slot, flat; what lies behind the range's end is padding."""

    @abstractmethod
    def _put(self, parameter: Any, slot: str, values: torch.Tensor) -> None:
        """Take this rank's range out of a whole tensor, flat."""

    def _fresh(self, flat: torch.Tensor, steps: int) -> dict[str, torch.Tensor]:
        moments = {slot: torch.zeros_like(flat, dtype=torch.float32) for slot in MOMENTS}
        return {"step": torch.tensor(float(steps)), **moments}


class Zero12State(ZeroState):
    """ZeRO 1 and 2: every rank has all weights in the run's precision, and a range of the float32 ones."""

    def _make_moments(self, steps: int) -> None:
        own = self._optimizer  # in bfloat16 ZeRO 1 has an optimizer of its own
        bf16 = hasattr(own, "fp32_groups_flat_partition")
        for flat in own.fp32_groups_flat_partition if bf16 else own.single_partition_of_fp32_groups:
            self._optimizer.optimizer.state[flat] = self._fresh(flat, steps)
        self._optimizer._hp_optimizer_states_linked = False
        self._optimizer._lazy_init_hp_params_optimizer_state()

    def _range(self, parameter: Any) -> range:
        fragment = parameter._hp_mapping
        if fragment is None:
            return range(0)
        start = fragment.lp_fragment_address.start
        return range(start, start + fragment.lp_fragment_address.numel)

    def _get(self, parameter: Any, slot: str) -> torch.Tensor:
        fragment, flat = parameter._hp_mapping, self._range(parameter)
        if slot != GRADIENT:
            found: torch.Tensor = fragment.get_hp_fragment(None if slot == WEIGHT else slot)
            return found
        gradient: torch.Tensor = fragment.get_lp_grad_fragment(parameter._index_in_param_group).flatten()
        return gradient[flat.start : flat.stop] if gradient.numel() == parameter.numel() else gradient

    def _put(self, parameter: Any, slot: str, values: torch.Tensor) -> None:
        flat = self._range(parameter)
        if flat:
            fragment = parameter._hp_mapping.get_hp_fragment(None if slot == WEIGHT else slot)
            fragment.data.copy_(values[flat.start : flat.stop])
        if slot == WEIGHT:
            self._put_frozen(parameter, values)

    def _put_frozen(self, parameter: Any, values: torch.Tensor) -> None:
        parameter.data.copy_(values.view(parameter.shape))


class Zero3State(ZeroState):
    """ZeRO 3: every rank has a range of the weights, and the same range of the float32 ones, perhaps on a disk."""

    def _make_moments(self, steps: int) -> None:
        for number, flat in enumerate(self._optimizer.fp32_partitioned_groups_flat):
            swapped = self._optimizer._swappable_optimizer_subgroup(number)
            if swapped:
                self._optimizer._optimizer_states_and_gradient_swap_in(number)
            self._optimizer.optimizer.state[flat] = self._fresh(flat, steps)
            if swapped:
                self._optimizer._optimizer_states_and_gradient_swap_out(number)

    def _range(self, parameter: Any) -> range:
        size = parameter.ds_tensor.ds_numel
        start = size * self._optimizer._get_param_partition_rank(parameter)
        return range(start, max(start, min(start + size, parameter.ds_numel)))

    def _get(self, parameter: Any, slot: str) -> torch.Tensor:
        if slot == GRADIENT:
            found: torch.Tensor = self._optimizer.get_local_fp32_grad_for_param(parameter)
        else:
            found = self._optimizer.get_local_fp32_param(parameter, None if slot == WEIGHT else slot)
        return found

    def _put(self, parameter: Any, slot: str, values: torch.Tensor) -> None:
        self._optimizer.set_local_hp_param(self._mine(parameter, values), parameter, None if slot == WEIGHT else slot)
        if slot == WEIGHT:
            self._put_frozen(parameter, values)

    def _put_frozen(self, parameter: Any, values: torch.Tensor) -> None:
        parameter.ds_tensor.data.copy_(self._mine(parameter, values))
        if parameter.numel() == parameter.ds_numel:  # a small one that every rank keeps whole
            parameter.data.copy_(values.view(parameter.ds_shape))

    def _mine(self, parameter: Any, values: torch.Tensor) -> torch.Tensor:
        """This rank's range of a whole tensor, flat, with padding behind its end."""
        flat, mine = self._range(parameter), torch.zeros(parameter.ds_tensor.ds_numel)
        mine[: len(flat)] = values[flat.start : flat.stop]
        return mine


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
