"""The real nvidia-ml-py on a library without a driver: numbers and devices against nvitop's, what is missing, MIG."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainwright.tracking.nvml_devices import NotMeasured, choose_devices

from .fake_nvml import FakeNvml

UUIDS = [f"GPU-{number}a{number:06d}-0000-4000-8000-000000000000" for number in range(8)]
H200 = ["NVIDIA H200"] * 8

_READ = """
import json, os
from dataclasses import asdict
from trainwright.tracking.nvml import Nvml
from trainwright.tracking.nvml_devices import NotMeasured
try:
    nvml = Nvml(os.environ)
    print(json.dumps({"gpus": [gpu.uuid for gpu in nvml.gpus], "readings": [asdict(each) for each in nvml.read()]}))
except NotMeasured as reason:
    print(json.dumps({"not_measured": str(reason)}))
"""

# Both readers in one process, on states that change between looks: [[ours, nvitop's], ...] for each look and GPU.
_COMPARE = """
import json, os, random, sys
from pathlib import Path
from nvitop import Device
from trainwright.tracking.nvml import Nvml
draw = random.Random(int(sys.argv[1]))
looks = []
for _ in range(40):
    lines = ["count 4"]
    for gpu in range(4):
        lines += [f"{gpu}.util {draw.randint(0, 100)}", f"{gpu}.used {draw.randrange(141 * 10**9)}"]
        lines += [f"{gpu}.power {draw.choice([draw.uniform(60, 700), -3])}"]
        lines += [f"{gpu}.temperature {draw.randint(20, 90)}"]
    Path(os.environ["FAKE_NVML_STATE"]).write_text("\\n".join(lines))
    nvml = Nvml(os.environ)
    for gpu, ours in zip(nvml.gpus, nvml.read(), strict=True):
        other = Device(uuid=gpu.uuid)
        power = other.power_usage()
        theirs = [other.gpu_utilization(), other.memory_used(), other.memory_total(), other.temperature()]
        mine = [ours.util_percent, ours.memory_used_bytes, ours.memory_total_bytes, ours.temperature_c]
        mine.append(None if ours.power_w is None else round(ours.power_w * 1000))
        looks.append([[gpu.uuid, *mine], [other.uuid(), *theirs, power if isinstance(power, int) else None]])
print(json.dumps(looks))
"""

_CHOOSE = """
import json, os, sys
from nvitop import normalize_cuda_visible_devices
from trainwright.tracking.nvml import Nvml
from trainwright.tracking.nvml_devices import NotMeasured
both = {}
for visible in json.loads(sys.argv[1]):
    try:
        ours = [gpu.uuid for gpu in Nvml({"CUDA_VISIBLE_DEVICES": visible}).gpus]
    except NotMeasured:
        ours = []
    theirs = normalize_cuda_visible_devices(visible)
    both[visible] = [ours, theirs.split(",") if theirs else []]
print(json.dumps(both))
"""


def read(fake_nvml: FakeNvml, **variables: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(fake_nvml.python(_READ, **variables))
    return answer


def test_numbers_are_those_that_nvitop_reads(fake_nvml: FakeNvml) -> None:
    seed = 20261124
    print("seed", seed)
    looks = json.loads(fake_nvml.python(_COMPARE, str(seed)))
    assert len(looks) == 160
    assert [ours for ours, _ in looks] == [theirs for _, theirs in looks]
    assert {theirs[5] is None for _, theirs in looks} == {True, False}  # both with and without power


def test_devices_are_those_that_nvitop_chooses(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(count=8)
    visible = ["0", "7,2", "3,9,1", "0,0", "-1", "", "8", UUIDS[5], f"{UUIDS[4]},{UUIDS[1]}", "1,x,2"]
    both = json.loads(fake_nvml.python(_CHOOSE, json.dumps(visible), CUDA_DEVICE_ORDER="PCI_BUS_ID"))
    assert both["7,2"][0] == [UUIDS[7], UUIDS[2]]
    for text, (ours, theirs) in both.items():
        assert ours == theirs, text


def test_all_gpus_without_any_variable(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(count=3)
    assert read(fake_nvml)["gpus"] == UUIDS[:3]


@pytest.mark.parametrize(
    ("left_out", "counter"), [("NO_POWER", "power_w"), ("NO_TEMPERATURE_V", None), ("NO_MEMORY2", None)]
)
def test_what_an_older_library_lacks_is_not_measured_or_read_the_old_way(
    fake_nvml: FakeNvml, left_out: str, counter: str | None
) -> None:
    full = read(fake_nvml)["readings"][0]
    assert None not in full.values()
    partly = read(fake_nvml.compiled(left_out))["readings"][0]
    assert partly == full | ({counter: None} if counter else {})


@pytest.mark.parametrize("code", [3, 4, 999])
def test_an_error_is_not_measured_and_never_zero(fake_nvml: FakeNvml, code: int) -> None:
    fake_nvml.set(**{"0.util": -code, "0.used": -code, "0.power": -code, "0.temperature": -code})
    first, second = read(fake_nvml)["readings"]
    assert first == dict.fromkeys(first, None) | {"lost": False}
    assert None not in second.values()


@pytest.mark.parametrize("code", [15, 16])
def test_a_lost_gpu_is_known(fake_nvml: FakeNvml, code: int) -> None:
    fake_nvml.set(**{"1.util": -code})
    assert [each["lost"] for each in read(fake_nvml)["readings"]] == [False, True]


def test_a_mig_instance_has_its_memory_alone(fake_nvml: FakeNvml) -> None:
    mig = "MIG-9a000000-0000-4000-8000-000000000009"
    fake_nvml.set(**{"9.used": 5e9})
    found = read(fake_nvml, CUDA_VISIBLE_DEVICES=mig)
    assert found["gpus"] == [mig]
    assert found["readings"][0]["memory_used_bytes"] == 5_000_000_000
    assert found["readings"][0]["util_percent"] is None
    assert found["readings"][0]["power_w"] is None


def test_a_driver_that_is_not_loaded_and_no_visible_gpu_say_why(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(init=-9)
    assert read(fake_nvml) == {"not_measured": "NVML: Driver Not Loaded"}
    fake_nvml.set(init=0)
    assert read(fake_nvml, CUDA_VISIBLE_DEVICES="") == {"not_measured": "no GPU is visible to this job"}


class TestChoice:
    """The variables, without a library."""

    def test_a_uuid_may_be_cut_short_while_it_means_one(self) -> None:
        # CUDA's documented rule; nvitop asks CUDA itself for these.
        assert choose_devices({"CUDA_VISIBLE_DEVICES": "GPU-6a0"}, UUIDS, H200) == [UUIDS[6]]
        assert choose_devices({"CUDA_VISIBLE_DEVICES": "GPU-"}, UUIDS, H200) == []

    def test_slurms_numbers_where_cuda_has_none(self) -> None:
        assert choose_devices({"SLURM_STEP_GPUS": "2,3"}, UUIDS, H200) == [UUIDS[2], UUIDS[3]]
        assert choose_devices({"SLURM_JOB_GPUS": "7"}, UUIDS, H200) == [UUIDS[7]]
        assert choose_devices({"SLURM_JOB_GPUS": "7", "CUDA_VISIBLE_DEVICES": "1"}, UUIDS, H200) == [UUIDS[1]]

    def test_a_cgroup_numbers_anew(self) -> None:
        assert choose_devices({"SLURM_JOB_GPUS": "6,7"}, UUIDS[:2], H200[:2]) == UUIDS[:2]
        with pytest.raises(NotMeasured, match="6,7"):
            choose_devices({"SLURM_JOB_GPUS": "6,7"}, UUIDS[:3], H200[:3])

    def test_numbers_among_different_gpus_need_one_order(self) -> None:
        mixed = ["NVIDIA A100", "NVIDIA H200"]
        with pytest.raises(NotMeasured, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
            choose_devices({"CUDA_VISIBLE_DEVICES": "0"}, UUIDS[:2], mixed)
        by_pci = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        assert choose_devices(by_pci, UUIDS[:2], mixed) == [UUIDS[0]]
        assert choose_devices({"CUDA_VISIBLE_DEVICES": UUIDS[1]}, UUIDS[:2], mixed) == [UUIDS[1]]


def test_nothing_is_measured_without_a_library(tmp_path: Path) -> None:
    nowhere = FakeNvml(tmp_path / "empty", tmp_path / "state")
    answer = read(nowhere)
    if "gpus" in answer:
        pytest.skip("this machine has a driver")
    assert answer == {"not_measured": "NVML: NVML Shared Library Not Found"}
