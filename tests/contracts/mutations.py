"""Mistakes put into the megatron-core engine, each of a kind that has been made in earnest. Applied inside a rank."""

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from ..integration.real_runs import GLM4_MOE, QWEN2_MOE, QWEN3_MOE
from .cases import LLAMA, LLAMA_TIED, MUON, QWEN2, QWEN3, Case, case


def _missing_norm_mark() -> None:
    """Norms are not marked as sequence parallel: their gradients stay partial sums."""
    from trainwright.parallelism.megatron.layers import RMSNorm

    unmark(RMSNorm, "weight")


def _mean_of_means() -> None:
    """Each micro batch's loss is divided by its own tokens."""
    from trainwright.parallelism.megatron.engine import MegatronEngine

    original = MegatronEngine._loss

    def averaged(self: Any, *args: Any) -> Any:
        total, tokens, report = original(self, *args)
        return total / tokens.clamp(min=1), torch.ones_like(tokens), report

    vars_of(MegatronEngine, _loss=averaged)


def _gate_and_up_swapped() -> None:
    from trainwright.storage.checkpoints import tensor_names

    original = tensor_names._gate_up
    vars_of(tensor_names, _gate_up=lambda part, names, *rest: original(part, names[::-1], *rest))


def _router_averaged() -> None:
    """The router's gradient is a mean over expert ranks, not a sum."""
    from trainwright.parallelism.megatron.experts import Router

    original = Router.__init__

    def halved(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.weight.register_hook(lambda gradient: gradient / 2)

    vars_of(Router, __init__=halved)


def _aux_loss_not_divided() -> None:
    """The balance loss is not scaled to the share of tokens that count."""
    from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler

    from trainwright.parallelism.megatron.experts import Router

    def attach(self: Any, activation: Any, coefficient: float, aux_loss: Any, *_: Any, **__: Any) -> Any:
        self._add((aux_loss / coefficient).detach(), self.num_experts)
        return MoEAuxLossAutoScaler.apply(activation, aux_loss * activation.shape[0] * self.tp_cp_group.size())

    vars_of(Router, attach_and_log_load_balancing_loss=attach)


def _embedding_not_reduced() -> None:
    """A tied embedding's gradients of the first and the last stage are not added."""
    finalize_model_grads = import_module("megatron.core.distributed.finalize_model_grads")
    vars_of(finalize_model_grads, _allreduce_word_embedding_grads=lambda *_, **__: None)


def _seed_not_split() -> None:
    """Every stage draws the same first weights for its layers."""
    from trainwright.storage.checkpoints.tensor_source import InitialWeights

    original = InitialWeights._block

    def same(self: Any, name: str, number: int) -> Any:
        halved = re.sub(r"layers\.(\d+)", lambda found: f"layers.{int(found.group(1)) % 2}", name)
        return original(self, halved, number)

    vars_of(InitialWeights, _block=same)


def _wrong_expert_offset() -> None:
    """Expert ranks believe to hold their neighbour's experts."""
    from trainwright.config.layout import Layout

    original = Layout.experts_of

    def shifted(self: Any, place: Any, num_experts: int) -> range:
        return original(self, replace(place, expert=(place.expert + 1) % self.expert), num_experts)

    vars_of(Layout, experts_of=shifted)


def _bias_decay() -> None:
    """Weight decay on biases and norms too."""
    from trainwright.parallelism.megatron.engine import MegatronEngine

    original = MegatronEngine.train_step

    def decaying(self: Any, *args: Any, **kwargs: Any) -> Any:
        for group in self._optimizer.param_groups:
            group["wd_mult"] = 1.0
        return original(self, *args, **kwargs)

    vars_of(MegatronEngine, train_step=decaying)


def _last_micro_batch_dropped() -> None:
    from trainwright.parallelism.megatron.engine import MegatronEngine

    original = MegatronEngine._run_microbatches

    def shortened(self: Any, samples: Any, **kwargs: Any) -> Any:
        keep = len(samples.tokens) - self._run.train.micro_batch_size
        return original(self, replace(samples, tokens=samples.tokens[:keep], counted=samples.counted[:keep]), **kwargs)

    vars_of(MegatronEngine, _run_microbatches=shortened)


def _upstream_5047() -> None:
    """The mend of https://github.com/NVIDIA/Megatron-LM/pull/5047 taken out."""
    from trainwright.parallelism.megatron.experts import Router

    del Router.attach_and_log_load_balancing_loss


def _upstream_5916() -> None:
    """The mend of https://github.com/NVIDIA/Megatron-LM/issues/5916 taken out: experts reduced as dense parameters."""
    from trainwright.parallelism.megatron import experts

    original = experts._matrix

    def unmarked(*args: Any) -> Any:
        weight: Any = original(*args)
        weight.allreduce = True
        return weight

    vars_of(experts, _matrix=unmarked)


def _head_norms_not_summed() -> None:
    """The mend of AutoTP's norms over single heads taken out."""
    engine = import_module("trainwright.parallelism.deepspeed.engine")
    vars_of(engine, sum_head_norms=lambda *_: None)


def _rotary_cast() -> None:
    """The mend taken out, and what zero.Init does by its own choice of the type where a CPU has no float16."""

    def cast(built: Any) -> None:
        rotary = built.model.rotary_emb
        rotary.inv_freq = rotary.inv_freq.to(torch.bfloat16).to(torch.float32)

    vars_of(import_module("trainwright.parallelism.deepspeed.model"), make_rotary_anew=cast)


def _muon_on_shares() -> None:
    """What ranks hold is made orthogonal by itself, not the whole matrix."""
    muon = import_module("trainwright.parallelism.megatron.muon")

    def alone(self: Any, matrix: Any, update: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = muon.orthogonal(update[None])[0] * (0.2 * max(update.shape) ** 0.5)
        return made

    vars_of(muon.WithMuon, _orthogonal=alone)


def _expert_bias_not_used() -> None:
    """Experts are chosen by their scores alone."""
    from trainwright.parallelism.megatron.experts import Router

    original = Router.routing

    def unbiased(self: Any, *args: Any, **kwargs: Any) -> Any:
        kept, self.expert_bias = self.expert_bias, torch.zeros_like(self.expert_bias)
        try:
            return original(self, *args, **kwargs)
        finally:
            self.expert_bias = kept

    vars_of(Router, routing=unbiased)


def _expert_bias_of_own_tokens() -> None:
    """Each rank moves the bias by the tokens that it has itself."""
    from trainwright.parallelism.megatron import routers

    report, rebalance = routers.Routers.report, routers.Routers.rebalance

    def keep(self: Any) -> Any:
        own = torch.stack([router._sums()[: self._num_experts] for router in self._routers])
        self.own_load = own.numpy() / own.numpy().mean()
        return report(self)

    vars_of(
        routers.Routers,
        report=keep,
        rebalance=lambda self, routing: rebalance(self, replace(routing, load=self.own_load)),
    )


def _expert_bias_lost() -> None:
    """The bias is not a number any more."""
    from trainwright.parallelism.balancing import Balance

    vars_of(Balance, changes=lambda self, routing: torch.full(routing.load.shape, torch.nan))


def _expert_bias_not_still() -> None:
    """The bias moves where the run file says that it stays."""
    from trainwright.parallelism.balancing import Balance

    original = Balance.__init__

    def moving(self: Any, *args: Any) -> None:
        original(self, *args)
        self._rate = 1e-3

    vars_of(Balance, __init__=moving)


def unmark(module: type, norm: str) -> None:
    """Take from the weight of a norm in every such module the mark that its gradient is a partial sum."""
    original = vars(module)["__init__"]

    def unmarked(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        getattr(self, norm).sequence_parallel = False

    vars_of(module, __init__=unmarked)


def vars_of(owner: Any, **values: Any) -> None:
    """Put values in place of the owner's own."""
    for name, value in values.items():
        setattr(owner, name, value)


_EP2 = case("ep2", QWEN2_MOE, 2, expert=2)
_BIASED = case("bias-ep2", GLM4_MOE, 2, expert=2)
SEEDED: dict[str, tuple[Callable[[], None], Case]] = {
    "missing sequence parallel norm mark": (_missing_norm_mark, case("sp", LLAMA, 2, tensor=2, sequence=True)),
    "mean of means": (_mean_of_means, case("dp2", LLAMA, 2)),
    "gate and up swapped": (_gate_and_up_swapped, case("tp2", LLAMA, 2, tensor=2)),
    "router averaged": (_router_averaged, _EP2),
    "aux loss not divided": (_aux_loss_not_divided, _EP2),
    "tied embedding not reduced": (_embedding_not_reduced, case("pp2", LLAMA_TIED, 2, pipeline=2)),
    "seed not split over stages": (_seed_not_split, case("pp2-4", LLAMA, 2, pipeline=2, virtual_pipeline=2)),
    "wrong expert offset": (_wrong_expert_offset, _EP2),
    "decay of biases": (_bias_decay, case("bias", QWEN2, 2, tensor=2)),
    "Muon on each rank's share": (_muon_on_shares, case("muon-tp2", LLAMA, 2, MUON, tensor=2, zero=0)),
    "expert bias not used": (_expert_bias_not_used, _BIASED),
    "expert bias moved by own tokens": (_expert_bias_of_own_tokens, _BIASED),
    "expert bias not a number": (_expert_bias_lost, _BIASED),
    "expert bias not still": (
        _expert_bias_not_still,
        case("bias-still", GLM4_MOE, 2, "train.router.bias_update_rate=0", expert=2),
    ),
    "last micro batch dropped": (_last_micro_batch_dropped, case("dp2", LLAMA, 2)),
}
"""Name -> what is done to a rank, and a layout in which it shows."""
UPSTREAM: dict[str, tuple[Callable[[], None], Case]] = {
    "Megatron-LM#5047": (_upstream_5047, case("tp2-ep2", QWEN3_MOE, 2, tensor=2, sequence=True, expert=2)),
    "Megatron-LM#5916": (_upstream_5916, case("tp2-etp1", QWEN3_MOE, 2, tensor=2, sequence=True)),
    "DeepSpeed AutoTP, norms over heads": (
        _head_norms_not_summed,
        case("tp2-qk-norm", QWEN3, 2, engine="deepspeed", zero=1, tensor=2),
    ),
    "DeepSpeed zero.Init, rotary cast": (_rotary_cast, case("zero3", LLAMA, 2, engine="deepspeed", zero=3)),
}
