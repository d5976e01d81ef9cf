"""What of Transformer Engine megatron-core's own wrappers are built on, in plain torch, where no GPU is.

Signatures, names and marks of parameters, and where tensor ranks talk to each other are as in Transformer Engine 1.8;
its kernels, and so its rounding, are not: those only a GPU can show (tests/gpu).
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from .mutations import unmark

_EXTENSION = "megatron.core.extensions.transformer_engine"


class _RMSNorm(torch.nn.Module):
    def __init__(
        self, hidden_size: int, eps: float, sequence_parallel: bool, params_dtype: torch.dtype, device: str, **_: Any
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=params_dtype, device=device))
        vars(self.weight)["sequence_parallel"] = sequence_parallel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class _Linear(torch.nn.Module):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        sequence_parallel: bool,
        tp_group: Any,
        tp_size: int,
        bias: bool,
        return_bias: bool,
        parallel_mode: str,
        params_dtype: torch.dtype,
        device: str,
        **_: Any,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.use_bias = in_features, out_features, bias
        self.parallel_mode, self.group, self.return_bias = parallel_mode, tp_group, return_bias
        self.sequence_parallel = sequence_parallel and tp_size > 1
        rows, cols = (
            (out_features // tp_size, in_features)
            if parallel_mode == "column"
            else (out_features, in_features // tp_size)
        )
        self.weight: Any = torch.nn.Parameter(torch.empty(rows, cols, dtype=params_dtype, device=device))
        self._mark(self.weight, 0 if parallel_mode == "column" else 1)
        self.bias: Any = torch.Tensor()
        if bias:
            self.bias = torch.nn.Parameter(torch.zeros(rows, dtype=params_dtype, device=device))
            self._mark(self.bias, 0)

    @staticmethod
    def _mark(parameter: Any, dim: int) -> None:
        parameter.tensor_model_parallel, parameter.partition_dim, parameter.partition_stride = True, dim, 1

    def forward(self, x: torch.Tensor, is_first_microbatch: bool | None = None) -> torch.Tensor:
        mappings = import_module("megatron.core.tensor_parallel.mappings")
        if self.parallel_mode == "column":
            into = (
                mappings.gather_from_sequence_parallel_region
                if self.sequence_parallel
                else mappings.copy_to_tensor_model_parallel_region
            )
            return torch.nn.functional.linear(
                into(x, group=self.group), self.weight, self.bias if self.use_bias else None
            )
        out = (
            mappings.reduce_scatter_to_sequence_parallel_region
            if self.sequence_parallel
            else mappings.reduce_from_tensor_model_parallel_region
        )
        made: torch.Tensor = out(torch.nn.functional.linear(x, self.weight), group=self.group)
        return made


class _LayerNormLinear(_Linear):
    def __init__(self, in_features: int, out_features: int, *, eps: float, normalization: str, **rest: Any) -> None:
        assert normalization == "RMSNorm"
        super().__init__(in_features, out_features, **rest)
        self.eps = eps
        ones = torch.ones(in_features, dtype=rest["params_dtype"], device=rest["device"])
        self.layer_norm_weight = torch.nn.Parameter(ones)
        vars(self.layer_norm_weight)["sequence_parallel"] = self.sequence_parallel

    def forward(self, x: torch.Tensor, is_first_microbatch: bool | None = None) -> torch.Tensor:
        weight = self.layer_norm_weight
        return super().forward(torch.nn.functional.rms_norm(x, weight.shape, weight, self.eps))


def install_unmarked() -> None:
    """The same with a mistake: the norm in front of a matrix does not say that its gradient is partial."""
    unmark(_LayerNormLinear, "layer_norm_weight")
    install()


class _Absent:
    """What the wrappers derive from and no layer here is made of."""


def install() -> None:
    """Give megatron-core's wrappers this, and let the engine take them."""
    package, modules = ModuleType("transformer_engine"), {}
    for name in ("pytorch", "pytorch.fp8", "pytorch.distributed", "common", "common.recipe"):
        modules[name] = ModuleType(f"transformer_engine.{name}")
    vars(package).update(__version__="1.8.0", __path__=[], pytorch=modules["pytorch"], common=modules["common"])
    vars(modules["pytorch"]).update(
        Linear=_Linear,
        LayerNormLinear=_LayerNormLinear,
        RMSNorm=_RMSNorm,
        DotProductAttention=_Absent,
        fp8=modules["pytorch.fp8"],
        distributed=modules["pytorch.distributed"],
        __path__=[],
    )
    vars(modules["pytorch.fp8"]).update(FP8GlobalStateManager=_Absent, fp8_autocast=_Absent)
    vars(modules["pytorch.distributed"]).update(CudaRNGStatesTracker=_Absent)
    vars(modules["common"]).update(recipe=modules["common.recipe"], __path__=[])
    vars(modules["common.recipe"]).update(DelayedScaling=_Absent)
    sys.modules["transformer_engine"] = package
    sys.modules.update({module.__name__: module for module in modules.values()})
    del sys.modules[_EXTENSION]  # imported without it; all else of megatron-core stays as it is
    extension = import_module(_EXTENSION)
    import_module("megatron.core.extensions").transformer_engine = extension  # type: ignore[attr-defined]
    engine = import_module("trainwright.parallelism.megatron.engine")
    vars(engine)["with_transformer_engine"] = lambda choice: True
