"""Choose a device and set it up, with recorded answers of MindSpore without a device, or invented answers."""
import contextlib
import gc
import logging
import os
import re
from types import SimpleNamespace
from typing import get_args

import mindspore as ms
import pytest
from mindspore.device_context.ascend import op_precision, op_tuning

from src.config import Config, with_settings
from src.errors import UserError
from src.run.device import load_error, set_up_device
from src.run.distributed import SingleProcess, join_processes
from src.run.environment import version_differences
from src.run.optional import kernels

# MindSpore 2.10 raises this error on a machine without CANN.
NO_ASCEND = """Unsupported device target Ascend. This process only supports one of the ['CPU']. Please check whether the Ascend \
environment is installed and configured correctly, and check whether current mindspore wheel package was built with "-e Ascend". \
For details, please refer to "Device load error message".

----------------------------------------------------
- Device load error message:
----------------------------------------------------
Load dynamic library: libmindspore_ascend.so.2 failed. libge_runner.so: cannot open shared object file: No such file or directory
Load dynamic library: libmindspore_ops_ascend.so failed. libmindspore_ascend_res_manager.so: cannot open shared object file: No \
such file or directory
"""
MISSING = "libge_runner.so: cannot open shared object file: No such file or directory"

CANN = version_differences(ms.__version__)[0]


@pytest.fixture
def machine(monkeypatch):
    """A function that simulates a machine with these numbers of devices; None: MindSpore does not support the kind."""
    chosen = []

    def set_device(name, number=None):
        if name == "Ascend" and not ms.device_context.ascend.is_available():
            raise RuntimeError(NO_ASCEND)
        chosen.append((name, number))

    def build(ascend=None, gpu=None):
        for name, count in (("ascend", ascend), ("gpu", gpu)):
            monkeypatch.setattr(getattr(ms.device_context, name), "is_available", lambda count=count: count is not None)
            monkeypatch.setattr(getattr(ms.device_context, name), "device_count", lambda count=count: count)
        monkeypatch.setattr(ms, "set_device", set_device)
        monkeypatch.setattr(ms, "set_context", lambda **_: None)
        return chosen
    return build


@pytest.fixture
def log(caplog):
    """The log of the program at level INFO, without the line that says once per process why there are no kernels."""
    kernels().library()
    caplog.clear()
    logging.getLogger("faster_rcnn").propagate = True
    caplog.set_level(logging.INFO, "faster_rcnn")
    return caplog


SLOW = "det_resnet50 at 768x1280 is slow on a CPU: a training step takes several seconds"


@pytest.mark.parametrize(("devices", "settings", "found", "reason", "warnings"), [
    ({"ascend": 8, "gpu": 1}, {}, "Ascend", " (device_target auto)", []),
    ({"gpu": 1}, {}, "GPU", f" (device_target auto: no Ascend, {MISSING})", []),
    ({}, {}, "CPU", f" (device_target auto: no Ascend, {MISSING})", [SLOW]),
    ({"ascend": 0, "gpu": 0}, {"data.target_size": [320, 320], "backbone.name": "det_resnet18"}, "CPU",
     " (device_target auto: there is no Ascend device)", []),
    ({}, {"device_target": "CPU"}, "CPU", "", [])])
def test_auto_takes_the_first_that_can_be_used_and_tells_why_not_ascend(machine, log, devices, settings, found, reason, warnings):
    machine(**devices)
    assert set_up_device(with_settings(Config(), settings), SingleProcess()).device_target == found
    assert log.messages[0] == f"device: {found}{reason}"
    assert [record.getMessage() for record in log.records if record.levelno == logging.WARNING] == warnings


def test_a_device_asked_for_by_name_that_cannot_be_used(machine):
    machine()
    cfg = with_settings(Config(), {"device_target": "Ascend"})
    with pytest.raises(UserError) as error:
        set_up_device(cfg, SingleProcess())
    assert str(error.value) == (f"device_target Ascend cannot be used here ({MISSING}); install CANN {CANN} with its "
                                "Python packages hccl and te, and source its set_env.sh, or give --device_target CPU.")
    # The load error of another plugin is not returned.
    assert load_error("GPU", NO_ASCEND.replace("target Ascend", "target GPU")) == "Unsupported device target GPU"


def test_imported_objects_are_excluded_from_garbage_collection():
    gc.unfreeze()
    set_up_device(with_settings(Config(), {"device_target": "CPU"}), SingleProcess())
    assert id(ms) not in map(id, gc.get_objects()) and gc.get_freeze_count() > 100_000


@pytest.fixture
def ascend(machine, monkeypatch):
    """A machine with Ascend, whose settings are in the returned dict. The functions of MindSpore check the values, and store them
    in two C++ objects that only its plugin for Ascend has."""
    stored = {}
    machine(ascend=1, gpu=1)
    monkeypatch.setattr(ms, "set_context", lambda **settings: stored.update(settings.get("jit_config", {})))
    monkeypatch.setattr(ms.context, "get_context", lambda _: "Ascend")
    conf = SimpleNamespace(
        precision_mode=lambda: "", jit_compile=lambda: "", is_precision_mode_configured=lambda: "precision_mode" in stored,
        is_jit_compile_configured=lambda: "op_compile" in stored,
        set_precision_mode=lambda mode: stored.update(precision_mode=mode),
        set_jit_compile=lambda value: stored.update(op_compile=value))
    for module, name in ((op_precision, "AscendOpPrecisionConf"), (op_tuning, "AscendOpTuningConf")):
        monkeypatch.setattr(module, name, SimpleNamespace(get_instance=lambda: conf), raising=False)
    return stored


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, {}), ({"jit_level": "O1"}, {"jit_level": "O1"}), ({"op_compile": True}, {"op_compile": "1"}),
    ({"jit_level": "O0", "precision_mode": "allow_fp32_to_bf16", "op_compile": False},
     {"jit_level": "O0", "precision_mode": "allow_fp32_to_bf16", "op_compile": "0"})])
def test_settings_for_ascend_reach_mindspore_before_the_device_is_initialised(ascend, monkeypatch, log, settings, expected):
    group, before = SingleProcess(), []
    monkeypatch.setattr(group, "connect", lambda _: before.append(dict(ascend)))
    set_up_device(with_settings(Config(), {"device_target": "Ascend", **settings}), group)
    assert before == [expected] and ascend == expected and "ignored" not in log.text
    ascend.clear()
    set_up_device(with_settings(Config(), {"device_target": "GPU", **settings}), SingleProcess())
    assert ascend == {}
    assert [line for line in log.messages if "ignored" in line] == [
        f"ignored, because the device is GPU and not Ascend: {', '.join(settings)}"] * bool(settings)


def test_precision_modes_are_those_of_mindspore(ascend):
    with pytest.raises(ValueError, match="must be one of") as error:
        op_precision.precision_mode("half")
    listed = re.findall(r"'(\w+)'", re.search(r"\[.*\]", str(error.value))[0])
    assert {"", *listed} == set(get_args(Config.model_fields["precision_mode"].annotation))


def test_each_process_of_a_machine_has_a_device_or_its_share_of_the_processors(machine, monkeypatch):
    """The last of four processes. A thread may end meanwhile."""
    chosen, bound, connected, group = machine(ascend=4), [], [], SingleProcess()
    group.size, group.rank, group.local_size, group.local_rank = 4, 3, 4, 3

    def bind(thread, processors):
        if thread == 22:
            raise ProcessLookupError("it has ended")
        bound.append((thread, processors))

    monkeypatch.setattr(os, "listdir", lambda path: {"/proc/self/task": ["11", "22", "33"]}[path])
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(os, "sched_setaffinity", bind)
    monkeypatch.setattr(ms, "set_auto_parallel_context", lambda **_: None)
    monkeypatch.setattr(group, "connect", connected.append)
    for device_target in ("CPU", "auto"):
        set_up_device(with_settings(Config(), {"device_target": device_target}), group)
    assert bound == [(11, [6, 7]), (33, [6, 7])]
    assert connected == ["CPU", "Ascend"] and chosen == [("CPU", None), ("Ascend", 3)]


@pytest.mark.parametrize(("variables", "number"), [
    ({}, 0), ({"ASCEND_DEVICE_ID": "5"}, 5), ({"DEVICE_ID": "2", "ASCEND_DEVICE_ID": "5"}, 2),
    ({"RANK_TABLE_FILE": "/etc/hccl.json", "RANK_ID": "0", "RANK_SIZE": "1", "ASCEND_DEVICE_ID": "7"}, 7),
    ({"ASCEND_DEVICE_ID": "-1"}, None), ({"ASCEND_DEVICE_ID": "0,1"}, None)])
def test_a_single_process_uses_the_device_that_its_environment_names(machine, monkeypatch, variables, number):
    """None: the variable is not the number of a device."""
    chosen = machine(ascend=8)
    for name in ("DEVICE_ID", "ASCEND_DEVICE_ID", "RANK_TABLE_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    message = "^DEVICE_ID or ASCEND_DEVICE_ID must be the number of a device, not '.*'; correct or"
    with pytest.raises(UserError, match=message) if number is None else contextlib.nullcontext():
        set_up_device(with_settings(Config(), {"device_target": "Ascend"}), join_processes())
    assert chosen == [("Ascend", number)] * (number is not None)


@pytest.mark.parametrize(("settings", "has_products", "expected", "sentence"), [
    ({"mix_dtype": "float16"}, True, (True, "bfloat16"), ["mixed precision: convolutions and dense layers in bfloat16"]),
    ({"mix_dtype": "bfloat16"}, False, (False, "bfloat16"), ["no mixed precision: the processor has no products of bfloat16"]),
    ({"mix": False}, True, (False, "float16"), []),
    ({"device_target": "Ascend", "mix_dtype": "float16"}, True, (True, "float16"), [])])
def test_mixed_precision_of_a_cpu(machine, monkeypatch, log, settings, has_products, expected, sentence):
    machine(ascend=1)
    monkeypatch.setattr(kernels(), "has_bf16_products", lambda: has_products)
    cfg = set_up_device(with_settings(Config(), {"device_target": "CPU", **settings}), SingleProcess())
    assert (cfg.mix, cfg.mix_dtype) == expected
    assert [line.partition(" (")[0] for line in log.messages if "mixed precision" in line] == sentence
