"""The `train` section: steps, batch, precision, optimizer and schedule."""

from typing import Literal

from pydantic import Field, model_validator

from .base import Section
from .lora import LoraConfig


class OptimizerConfig(Section):
    """The optimizer and its numbers."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW with decoupled weight decay (none on norms and biases), or Muon for the matrices of hidden layers and AdamW
    for all else (embedding, output, router, norms, biases). Its updates are as large as AdamW's: the same lr does."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = Field(default=(0.9, 0.95), strict=False)
    """Decay rates of the first and second moment."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's momentum (Nesterov's)."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of matrices."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Largest global gradient norm; 0 means no clipping."""

    @model_validator(mode="after")
    def _betas_below_one(self) -> "OptimizerConfig":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: {list(self.betas)} must lie in [0, 1)")
        return self


class ScheduleConfig(Section):
    """Learning rate over the steps."""

    name: Literal["cosine", "wsd", "constant"] = "cosine"
    """cosine: to min_lr over all steps; wsd: warm up, stay, decay linearly over the last decay_steps; constant."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the rate rises linearly from 0 to lr; more than steps means that it never gets there."""
    min_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the last step."""
    decay_steps: int | None = Field(default=None, ge=1)
    """Length of wsd's decay in steps; a tenth of all steps if not given."""


class RouterConfig(Section):
    """What keeps the router of a mixture of experts in balance; for models with experts only."""

    aux_loss_coef: float | None = Field(default=None, ge=0)
    """Weight of the load balancing loss (Switch Transformer's); the model's router_aux_loss_coef if not given."""
    z_loss_coef: float = Field(default=0.0, ge=0)
    """Weight of the router's z loss (ST-MoE): the mean of the squared logsumexp of its logits."""
    bias_update_rate: float | None = Field(default=None, ge=0)
    """For models with a bias that chooses experts (GLM-4.5): what each step adds to that of experts with too few tokens
    and takes from that of experts with too many; 0.001 if not given, and 0 with train.lora."""


class TrainConfig(Section):
    """How long, how much per step, and with what numbers."""

    steps: int = Field(ge=0)
    """Optimizer steps of the whole run, resumes included; 0 only saves the first weights as a checkpoint."""
    global_batch_size: int = Field(ge=1)
    """Sequences per optimizer step, over all ranks."""
    micro_batch_size: int = Field(default=1, ge=1)
    """Sequences per forward pass of one rank."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Type of parameters and activations; master weights, moments and gradient sums are fp32 either way."""
    recompute: Literal["none", "attention", "full"] = "none"
    """Activations computed again in the backward pass: none, the attention's inner part, or whole layers."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The learning-rate schedule."""
    lora: LoraConfig | None = None
    """Adapters of low rank, which are trained in place of all weights; with the deepspeed engine. null: all weights."""
    router: RouterConfig = RouterConfig()
    """The router's losses and balance, for models with experts."""
    deterministic: bool = False
    """Only operations that give the same bits every time, on GPUs too, where some are slower."""
    seed: int = Field(default=1234, ge=0, lt=2**63)
    """Seed of the initial weights."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> "TrainConfig":
        schedule = self.schedule
        if schedule.min_lr > self.optimizer.lr:
            raise ValueError(f"schedule.min_lr: {schedule.min_lr} is above optimizer.lr ({self.optimizer.lr})")
        if schedule.decay_steps is not None and schedule.name != "wsd":
            raise ValueError(f"schedule.decay_steps: only wsd has a decay of its own, not {schedule.name}")
        # A run shorter than its warm-up is fine (people shorten runs to try them); one shorter than its decay is not.
        if schedule.decay_steps is not None and schedule.decay_steps > self.steps:
            raise ValueError(f"schedule.decay_steps: {schedule.decay_steps} is more than steps ({self.steps})")
        return self
