"""Layouts that cannot be, or should not: the fields that are set, without their sections, and words of the one line."""

from typing import Any

SECTIONS = {
    "cluster": ("nodes", "ranks_per_node"),
    "train": ("global_batch_size", "micro_batch_size", "recompute"),
    "train.optimizer": ("name",),
    "train.router": ("z_loss_coef", "aux_loss_coef", "bias_update_rate"),
    "data": ("sequence_length",),
}
DENSE = [
    ("tensor=3", "parallelism.tensor: 3 does not divide the model's num_attention_heads 4; use one of [1, 2, 4]"),
    ("tensor=8", "parallelism.tensor: 8 does not divide the model's num_attention_heads 4"),
    (
        "name=muon",
        "parallelism.zero: 1 with optimizer muon, which needs whole matrices on each data parallel rank; use zero 0",
    ),
    ("name=muon engine=deepspeed zero=2", "train.optimizer.name: muon with engine deepspeed"),
    ("tensor=2", "make the world size a multiple of 2"),
    ("tensor=4 ranks_per_node=6", "tensor 4 x pipeline 1 does not divide the world size 6"),
    (
        "tensor=2 ranks_per_node=2 sequence=true sequence_length=33",
        "33 is not a multiple of 2, as parallelism.tensor 2",
    ),
    ("pipeline=3", "parallelism.pipeline: 3 does not divide the model's num_hidden_layers 4; use one of [1, 2, 4] or"),
    ("pipeline=3 nodes=3", "or stage_layers=[2, 1, 1]"),
    ("pipeline=8 nodes=8", "parallelism.pipeline: 8 does not divide the model's num_hidden_layers 4"),
    ("pipeline=2 nodes=3", "pipeline 2 does not divide the world size 3"),
    ("pipeline=2 virtual_pipeline=3", "2 x virtual_pipeline 3 does not divide the model's num_hidden_layers 4"),
    ("pipeline=4 virtual_pipeline=2 nodes=4", "4 x virtual_pipeline 2 does not divide"),
    ("virtual_pipeline=2", "parallelism.virtual_pipeline: 2 at pipeline 1"),
    ("pipeline=2 stage_layers=[4]", "has 1 numbers, and there are 2 chunks"),
    ("pipeline=2 stage_layers=[2,3]", "is 5 layers, and the model's"),
    ("pipeline=2 virtual_pipeline=2 stage_layers=[2,2]", "has 2 numbers, and there are 4 chunks"),
    ("stage_layers=[2,2]", "has 2 numbers, and there are 1 chunks"),
    (
        "nodes=2 pipeline=2 virtual_pipeline=2 global_batch_size=6 micro_batch_size=2",
        "6 is 3 micro batches, no multiple of pipeline 2, which virtual_pipeline needs; use 4 or 8",
    ),
    ("nodes=2 pipeline=2 virtual_pipeline=2 global_batch_size=1", "is 1 micro batches"),
    ("context=2", "tensor 1 x context 2 x pipeline 1 does not divide the world size 1"),
    ("ranks_per_node=2 context=2 sequence_length=30", "30 is not a multiple of 4, as parallelism.context 2 needs"),
    (
        "ranks_per_node=12 tensor=4 context=3 sequence=true sequence_length=6",
        "6 is not a multiple of 12, as parallelism.context 3 and parallelism.tensor 4 need; use 12",
    ),
    ("zero=2", "zero: 2, but megatron shares only the optimizer's state; use zero 0 or 1, or"),
    ("zero=3", "or parallelism.engine=deepspeed"),
    ("offload=cpu", "parallelism.offload: cpu, but megatron keeps its state on the GPU"),
    ("offload_folder=/scratch", "offload_folder: /scratch with offload none; take it out, or set"),
    ("expert=2 ranks_per_node=2", "parallelism.expert: 2, but the model has no experts; take the field out"),
    ("expert_tensor=2 ranks_per_node=2", "but the model has no experts; take the field out"),
    ("z_loss_coef=0.1", "but the model has no experts; take the field out"),
    ("aux_loss_coef=0.01", "but the model has no experts; take the field out"),
    ("ranks_per_node=3", "train.global_batch_size: 4 is not a multiple"),
    ("micro_batch_size=3", "use 3 or 6"),
    ("micro_batch_size=8", "use 8"),
    ("sequence_length=65", "more than the model's max_position_embeddings 64"),
    ("engine=deepspeed zero=0", "parallelism.zero: 0 with engine deepspeed; use 1, 2 or 3"),
    ("engine=deepspeed pipeline=2", "use 1 and zero 3, or parallelism.engine=megatron"),
    ("engine=deepspeed virtual_pipeline=2", "parallelism.virtual_pipeline: 2 with engine deepspeed"),
    ("engine=deepspeed expert=2", "parallelism.expert: 2, but the model has no experts"),
    ("engine=deepspeed expert_tensor=2", "parallelism.expert_tensor: 2 with engine deepspeed"),
    ("engine=deepspeed recompute=attention", "train.recompute: attention with engine deepspeed"),
    ("engine=deepspeed offload=nvme", "parallelism.offload: nvme with zero 1; use zero 3, or offload cpu"),
    ("engine=deepspeed offload=nvme zero=3", "parallelism.offload_folder: is missing; give a folder on each node's"),
    (
        "engine=deepspeed ranks_per_node=3 context=3",
        "3 with engine deepspeed does not share 4 heads and 2 key-value heads out; use one of [1, 2, 4]",
    ),
    ("engine=deepspeed ranks_per_node=8 context=8", "parallelism.context: 8 with engine deepspeed"),
    ("engine=deepspeed ranks_per_node=4 tensor=4", "4 with engine deepspeed does not divide the model's 2 key-value"),
    ("engine=deepspeed ranks_per_node=4 tensor=2 context=2", "parallelism.context: 2 beside tensor 2"),
    ("engine=deepspeed ranks_per_node=2 tensor=2 sequence=true", "parallelism.sequence: true with engine deepspeed"),
]
EXPERTS = [
    ("expert=3", "parallelism.expert: 3 does not divide the model's number of experts 8"),
    ("expert=16 ranks_per_node=16 global_batch_size=16", "parallelism.expert: 16 does not divide"),
    ("expert=2", "expert 2 x expert_tensor 1 does not divide the 1 ranks of a pipeline stage"),
    ("expert=4 nodes=2 pipeline=2 ranks_per_node=3 global_batch_size=6", "does not divide the 3 ranks of a pipeline"),
    ("ranks_per_node=2 expert_tensor=2", "parallelism.expert_tensor: 2 is neither 1 nor"),
    ("ranks_per_node=4 tensor=4 sequence=true expert_tensor=2", "2 is neither 1 nor tensor; use 1 or 4"),
    ("ranks_per_node=2 tensor=2 sequence=true expert_tensor=2 expert=2", "expert 2 x expert_tensor 2 does not divide"),
    ("ranks_per_node=2 tensor=2", "set parallelism.sequence=true"),
    ("engine=deepspeed ranks_per_node=2 tensor=2", "2 with engine deepspeed, for a mixture of experts"),
    ("engine=deepspeed ranks_per_node=4 expert=2 context=2", "parallelism.context: 2 beside expert 2, with engine"),
]
OTHER_MODELS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"num_attention_heads": 6, "head_dim": 16, "intermediate_size": 126},
        "tensor=3 ranks_per_node=3",
        "3 fits no way over 2 key-value heads; use one of",
    ),
    ({"intermediate_size": 126}, "tensor=4 ranks_per_node=4", "4 does not divide the model's intermediate_size 126"),
    (
        {"model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96},
        "engine=deepspeed ranks_per_node=2 expert=2",
        "2 with engine deepspeed, whose AutoEP knows no glm4_moe",
    ),
    (
        {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96},
        "bias_update_rate=0.01",
        "train.router.bias_update_rate: 0.01, but qwen3_moe has no bias that chooses experts; use aux_loss_coef",
    ),
]
UNWISE = [
    ("tensor=2 nodes=2 sequence=true", "parallelism.tensor: 2 reaches over nodes of 1 ranks", "use tensor 1"),
    ("tensor=4 nodes=2 ranks_per_node=2 sequence=true", "reaches over nodes of 2 ranks", "use tensor 2"),
    ("context=2 nodes=2", "parallelism.context: 2 x tensor 1 reaches over nodes of 1 ranks", "smaller context"),
    ("tensor=2 ranks_per_node=2", "parallelism.sequence: false at tensor 2", "set parallelism.sequence=true"),
    ("ranks_per_node=4 zero=0", "parallelism.zero: 0 keeps the optimizer's state 4 times", "zero 1"),
    ("tensor=4 ranks_per_node=4 sequence=true", "more than the model's 2 key-value heads", "use tensor 2"),
    (
        "pipeline=4 nodes=4 global_batch_size=2",
        "2 micro batches for 4 pipeline stages, which wait 60%",
        "use 8 or more",
    ),
    (
        "pipeline=2 nodes=2 stage_layers=[3,1] global_batch_size=16",
        "stages of [3, 1] layers, and all wait for the one with 3",
        "nearly the same number",
    ),
]
