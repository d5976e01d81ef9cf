"""Which GPUs of a node are this job's: from CUDA_VISIBLE_DEVICES or Slurm's variables to UUIDs.

NVML itself shows all GPUs of the node and knows nothing of CUDA_VISIBLE_DEVICES.
"""

from collections.abc import Mapping, Sequence


class NotMeasured(Exception):
    """Why there are no numbers, in a few words."""


def choose_devices(environment: Mapping[str, str], uuids: Sequence[str], names: Sequence[str]) -> list[str]:
    """UUIDs of this job's GPUs, in CUDA's order; MIG ids stay as they are given.

    `uuids` and `names` are those of all GPUs, by NVML's index (PCI order). Raises NotMeasured if it cannot be told.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        by_pci = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        return _as_cuda_does([word.strip() for word in visible.split(",")], uuids, by_pci or len(set(names)) <= 1)
    slurm = environment.get("SLURM_STEP_GPUS") or environment.get("SLURM_JOB_GPUS")
    if slurm:
        return _as_slurm_says([word.strip() for word in slurm.split(",")], uuids)
    return list(uuids)


def _as_cuda_does(words: list[str], uuids: Sequence[str], same_order: bool) -> list[str]:
    """CUDA takes words up to the first that it does not understand, and none if one is given twice."""
    chosen: list[str] = []
    for word in words:
        if word.isdigit():
            if not same_order:  # CUDA numbers the fastest first, NVML by PCI address
                reason = "GPUs of several kinds, and CUDA_VISIBLE_DEVICES has numbers; set CUDA_DEVICE_ORDER=PCI_BUS_ID"
                raise NotMeasured(reason)
            found = [uuids[int(word)]] if int(word) < len(uuids) else []
        elif word.startswith("MIG-"):
            found = [word]
        else:
            found = [uuid for uuid in uuids if word and uuid.startswith(word)]
        if len(found) != 1:
            break
        chosen += found
    return chosen if len(set(chosen)) == len(chosen) else []


def _as_slurm_says(words: list[str], uuids: Sequence[str]) -> list[str]:
    """Slurm numbers the GPUs of the node; where a cgroup hides the others, NVML numbers those that are left anew."""
    if len(words) == len(uuids):
        return list(uuids)
    if all(word.isdigit() and int(word) < len(uuids) for word in words):
        return [uuids[int(word)] for word in words]
    raise NotMeasured(f"Slurm gives GPUs {','.join(words)}, and NVML shows {len(uuids)}")
