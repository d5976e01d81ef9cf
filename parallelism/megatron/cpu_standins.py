"""megatron-core on a machine without CUDA: the few torch.cuda names that it uses, stood in for by the CPU's.

Called once per training process before megatron is imported, and only where CUDA is not there. Nothing here changes
what is computed; streams and synchronisation have no meaning on CPU.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

_FACTORIES = ("tensor", "zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint")


class _Stream:
    """A stream or event that is always done."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: True if name == "query" else self


def install() -> None:
    """Put the stand-ins in place."""
    _stand_in_for_cuda()
    _accept_cuda_devices()
    _report_cuda_types()
    dist.all_to_all_single = _all_to_all_with_lists(dist.all_to_all_single)
    dist.all_gather = _all_gather_of_any_lengths(dist.all_gather)
    dist.reduce_scatter = _reduce_scatter_of_any_lengths(dist.reduce_scatter)


def _stand_in_for_cuda() -> None:
    cuda: Any = torch.cuda
    cuda.current_device = lambda: torch.device("cpu")
    cuda.current_stream = lambda *_, **__: _Stream()
    cuda.default_stream = lambda *_, **__: _Stream()
    cuda.Stream = cuda.Event = _Stream
    cuda.stream = lambda *_, **__: contextlib.nullcontext()
    # One function per name: torch's compiler refuses one object under two names.
    for owner, name in ((cuda, "set_device"), (cuda, "synchronize"), (cuda, "empty_cache")):
        setattr(owner, name, lambda *_, **__: None)
    for name in ("range_push", "range_pop"):
        setattr(cuda.nvtx, name, lambda *_, **__: None)
    cuda.get_rng_state = lambda *_, **__: torch.get_rng_state()
    cuda.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
    cuda.manual_seed = torch.manual_seed
    cuda.default_generators = [torch.default_generator]
    cuda.get_device_capability = lambda *_, **__: (0, 0)
    tensor: Any = torch.Tensor
    module: Any = torch.nn.Module
    tensor.cuda = lambda self, *_, **__: self
    module.cuda = lambda self, *_, **__: self


def _accept_cuda_devices() -> None:
    """`torch.zeros(..., device="cuda")` is literal in megatron-core: make it mean the CPU, where nothing is pinned."""

    def on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(factory)
        def make(*args: Any, **kwargs: Any) -> Any:
            if str(kwargs.get("device", "")).startswith("cuda"):
                kwargs["device"] = "cpu"
            kwargs.pop("pin_memory", None)
            return factory(*args, **kwargs)

        return make

    for name in _FACTORIES:
        setattr(torch, name, on_cpu(getattr(torch, name)))


def _report_cuda_types() -> None:
    """Optimizers sort parameters by `param.type() == "torch.cuda.FloatTensor"`."""
    original = torch.Tensor.type

    def cuda_type(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, *args, **kwargs)
        return answer.replace("torch.", "torch.cuda.") if isinstance(answer, str) else answer

    tensor: Any = torch.Tensor
    tensor.type = cuda_type
    for name in ("Float", "Double", "Half", "BFloat16", "Int", "Long"):
        setattr(torch.cuda, f"{name}Tensor", getattr(torch, f"{name}Tensor"))


def _all_to_all_with_lists(all_to_all: Callable[..., Any]) -> Callable[..., Any]:
    """gloo wants split sizes as lists, megatron-core passes tensors."""

    def listed(sizes: Any) -> Any:
        return sizes.tolist() if isinstance(sizes, torch.Tensor) else sizes

    def exchange(
        output: Any, input: Any, output_split_sizes: Any = None, input_split_sizes: Any = None, **kwargs: Any
    ) -> Any:
        return all_to_all(output, input, listed(output_split_sizes), listed(input_split_sizes), **kwargs)

    return exchange


def _all_gather_of_any_lengths(all_gather: Callable[..., Any]) -> Callable[..., Any]:
    """NCCL gathers tensors of different lengths (the tokens of experts' tensor ranks), gloo only equal ones."""

    def gather(outputs: list[torch.Tensor], mine: torch.Tensor, group: Any = None, **kwargs: Any) -> Any:
        longest = max(len(each) for each in outputs) if outputs and outputs[0].dim() else 0
        if all(len(each) == longest for each in outputs if longest):
            return all_gather(outputs, mine, group=group, **kwargs)
        padded = mine.new_zeros(longest, *mine.shape[1:])
        padded[: len(mine)] = mine
        received = [torch.empty_like(padded) for _ in outputs]
        all_gather(received, padded, group=group)
        for output, each in zip(outputs, received, strict=True):
            output.copy_(each[: len(output)])
        return None

    return gather


def _reduce_scatter_of_any_lengths(reduce_scatter: Callable[..., Any]) -> Callable[..., Any]:
    """The same the other way; a sum."""

    def scatter(output: torch.Tensor, mine: list[torch.Tensor], *args: Any, group: Any = None, **kwargs: Any) -> Any:
        if len({len(each) for each in mine}) < 2:
            return reduce_scatter(output, mine, *args, group=group, **kwargs)
        if args or kwargs:
            raise NotImplementedError("only sums are needed")
        whole = torch.cat(mine)
        dist.all_reduce(whole, group=group)
        output.copy_(torch.split(whole, [len(each) for each in mine])[dist.get_rank(group)])
        return None

    return scatter
