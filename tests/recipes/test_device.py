"""What recipes compute on: told by a variable, found by torch, or refused. The hardware is not here.

Ascend's backend is stood in for by torch's own way of adding one, in a process of its own; Apple's and Intel's by their
absence.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.models import device
from services.trainer.refusals import device_told

#: What torch_npu does to torch, as far as recipes ask for it.
TORCH_NPU = """
import types
import torch

npu = types.ModuleType("torch.npu")
npu.is_available, npu.device_count = lambda: True, lambda: 1
torch.utils.rename_privateuse1_backend("npu")
torch._register_device_module("npu", npu)


class Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self): return True
    def is_built(self): return True
    def has_primary_context(self, index): return True


hooks = Hooks()
torch._C._acc.register_python_privateuseone_hook(hooks)
"""
ASKED = """
from services.trainer.recipes.models import device
print(device.device_type(), device.bfloat16_here(), device.pins_memory(), device.accelerator().__name__)
"""


@pytest.mark.prove
def test_ascend_is_reached_through_the_package_that_adds_it_to_torch(tmp_path):
    (tmp_path / "torch_npu.py").write_text(TORCH_NPU)
    environ = {**os.environ, "DEVICE_TYPE": "ASCEND", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    done = subprocess.run([sys.executable, "-c", ASKED], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["npu", "True", "True", "torch.npu"], done.stderr


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("ascend", "torch knows through torch_npu, and that cannot be imported"),
        ("mps", "is mps, and torch finds cpu; install the driver and the torch of that device, or set it to cpu"),
        ("intel", "is xpu, and torch finds cpu"),
    ],
)
def test_a_device_that_is_told_and_not_there_is_refused(monkeypatch, told, words):
    monkeypatch.setenv("SLUICE_DEVICE_TYPE", told)
    with pytest.raises(BadInput, match=words):
        device.device_type()


def test_a_processor_is_a_processor_whoever_makes_it(monkeypatch):
    for told in ("", "cpu", "ARM", "aarch64"):
        monkeypatch.setenv("SLUICE_DEVICE_TYPE", told)
        assert (device.device_type(), device.bfloat16_here(), device.pins_memory()) == ("cpu", False, False)
        assert device.accelerator() is None


def test_the_suites_variable_comes_first_and_a_wrong_word_is_named():
    assert device_told({"SLUICE_DEVICE_TYPE": "Apple", "DEVICE_TYPE": "ASCEND"}) == "mps"
    assert device_told({}) == ""
    with pytest.raises(ValueError, match="DEVICE_TYPE is `TPU`; it takes one of cpu, cuda, xpu, npu, mps, nvidia"):
        device_told({"DEVICE_TYPE": "TPU"})
