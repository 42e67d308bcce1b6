"""tools/benchmark.py --compare: the exported network, running it in other programs, and the comparison with this program."""
import importlib.util
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from src.config import with_settings
from src.detector import Predictor, build_detector
from src.errors import UserError
from src.run.environment import DEFAULTS
from tests.helpers.tiny_networks import NUM_CLASSES, V2, tiny_config, tiny_inputs, tiny_network
from tools.benchmarking import measure, peer_process
from tools.benchmarking.measure import compare, noise_batch, write_onnx

# OpenVINO in bf16 fails with the instruction limit that is set for MindSpore.
ENVIRONMENT = {name: value for name, value in {**os.environ, "OWN_VARIABLE": "own"}.items() if name not in DEFAULTS}


def if_installed(name):
    missing = importlib.util.find_spec(name) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed"))


def build(**settings):
    """Return configuration, network on the kernels, two batches of two images, and their outputs, in PyNative mode."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    cfg = tiny_config(ms_mode=1, **settings)
    network = tiny_network(cfg)
    predictor = Predictor(network, cfg)
    batch, (image, valid_size) = noise_batch(cfg, NUM_CLASSES), tiny_inputs(2)
    batches = [batch._replace(image=ms.Tensor(image), valid_size=ms.Tensor(valid_size)) for image in (image, image[::-1].copy())]
    outputs = [predictor(batch.image, batch.valid_size) for batch in batches]
    return cfg, network, batches, outputs


@pytest.fixture(scope="module")
def detector():
    return build()


def recorded(batches, outputs, calls):
    """Return a function that replaces a Predictor: it returns its outputs, and appends the number of the batch to `calls`."""
    images = [batch.image.asnumpy() for batch in batches]

    def predict(image, _):
        [number] = [number for number, known in enumerate(images) if np.array_equal(known, image.asnumpy())]
        calls.append(number)
        return outputs[number]
    return predict


@pytest.mark.parametrize("name", [if_installed(name) for name in peer_process.PEERS])
def test_a_peer_computes_the_same_in_turn_and_has_a_ratio(detector, monkeypatch, name):
    """The peer runs, but its measured seconds are replaced. With --mix True, OpenVINO computes in bf16 if the processor can."""
    def record(*arguments):
        calls.append(arguments[1:])
        return (100.0 if len(calls) == 1 else float(len(calls)), *run_in(*arguments)[1:])

    cfg, network, batches, outputs = detector
    own, calls, run_in = [], [], measure.run_in
    monkeypatch.setattr(measure, "run_in", record)
    result = compare([name], network, cfg, recorded(batches, outputs, own), batches, 4, ENVIRONMENT)
    assert own == [0, 1, 0, 1, 0]  # the batches in turn; the first call is the warm-up
    assert [call[0] for call in calls] == [name] * 5
    for number, (_, image, valid_size) in zip(own, calls):
        assert np.array_equal(image, batches[number].image.asnumpy()) and valid_size.tolist() == [[48, 64], [56, 64]]
    peer = result["peers"][name]
    assert result["threads"] == len(os.sched_getaffinity(0)) and result["mix"] is False
    assert peer["seconds"] == 3.5  # the median of 2, 3, 4 and 5
    assert peer["ratio"] == pytest.approx(result["seconds"] / 3.5)
    assert peer["dtype"] == "fp32" and peer["version"][0].isdigit()
    assert peer["agreement"]["alone"] == 0 and peer["agreement"]["rows"] == 2 * 2 * 40
    assert 0 < peer["agreement"]["box_difference"] < 0.1 and peer["agreement"]["score_difference"] < 1e-3
    mixed = compare([name], network, with_settings(cfg, {"mix": True}), recorded(batches, outputs, own), batches, 1, ENVIRONMENT)
    has_bf16 = name == "openvino" and "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    assert mixed["mix"] and mixed["peers"][name]["dtype"] == ("bf16" if has_bf16 else "fp32")


def test_the_peers_run_torchvisions_second_network():
    """The ONNX file is written in fp32, and its outputs agree with the kernels'; with other BatchNorm statistics, they differ."""
    cfg, network, batches, outputs = build(**{**V2, "bbox_head__head__num_convs": 4})
    result = compare(["onnxruntime"], network, cfg, recorded(batches, outputs, []), batches, 1, ENVIRONMENT)
    agreement = result["peers"]["onnxruntime"]["agreement"]
    assert agreement["alone"] == 0 and agreement["rows"] == 2 * 2 * 40
    variance = network.box_head.convs[3].norm.moving_variance
    variance.set_data(variance * 2)
    with pytest.raises(UserError, match="--compare onnxruntime: its outputs differ"):
        compare(["onnxruntime"], network, cfg, recorded(batches, outputs, []), batches, 1, ENVIRONMENT)


def test_other_outputs_are_refused(detector):
    """In fp32 even one proposal of 80 is refused; with mixed precision, the outputs of another network."""
    cfg, network, batches, outputs = detector

    def compared(cfg, change, boxes=0.0, scores=0.0):
        moved = [(part[0].copy(), part[1] + np.float32(scores)) for part in outputs]
        moved[0][0][change] += boxes
        return compare(["onnxruntime"], network, cfg, recorded(batches, moved, []), batches, 1, ENVIRONMENT)

    one, mixed = (0, 0), with_settings(cfg, {"mix": True})
    with pytest.raises(UserError, match="--compare onnxruntime: its outputs differ .* 158 of 160 rows of both have"):
        compared(cfg, one, boxes=1)
    assert compared(mixed, one, boxes=100)["peers"]["onnxruntime"]["agreement"]["alone"] in (1, 2)  # another proposal may be near
    for settings, shift in ((cfg, 0.05), (mixed, 3)):
        result = compared(settings, (), boxes=shift)["peers"]["onnxruntime"]["agreement"]
        assert result["alone"] == 0 and result["box_difference"] == pytest.approx(shift, rel=0.01)
    for wrong in ({"boxes": 100}, {"scores": np.nan}):
        with pytest.raises(UserError, match=r": 0 of 160 rows .* \(required for 50%\); leave onnxruntime out"):
            compared(mixed, (), **wrong)


def test_the_peers_get_fp32_weights_whatever_this_program_computes_in(detector, tmp_path):
    cfg, network, [batch, _], _ = detector
    inputs = batch.image.asnumpy(), batch.valid_size.asnumpy()
    mixed = with_settings(cfg, {"mix": True})
    half = build_detector(mixed, NUM_CLASSES)
    for parameter, same in zip(half.get_parameters(), network.get_parameters()):
        parameter.set_data(same.value())
    write_onnx(str(tmp_path / "fp32"), network, cfg, *inputs)
    write_onnx(str(tmp_path / "half"), half, mixed, *inputs)
    assert (tmp_path / "fp32").read_bytes() == (tmp_path / "half").read_bytes()


def process(*arguments):
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), peer_process.load, (ENVIRONMENT, *arguments))


def test_a_peer_has_its_environment_and_no_mindspore(detector, tmp_path):
    """A peer whose process ends is named."""
    cfg, network, [batch, _], _ = detector
    inputs, path = (batch.image.asnumpy(), batch.valid_size.asnumpy()), str(tmp_path / "a.onnx")
    write_onnx(path, network, cfg, *inputs)
    with process("onnxruntime", path, 1, "fp32") as pool:
        assert measure.run_in(pool, "onnxruntime", *inputs)[2] == "fp32"
        assert pool.submit(os.getenv, "OWN_VARIABLE").result() == "own"
        assert pool.submit(os.getenv, "ONEDNN_MAX_CPU_ISA").result() is None
        assert "libmindspore" not in pool.submit(Path.read_text, Path("/proc/self/maps")).result()
        pool.submit(os._exit, 3)
        with pytest.raises(UserError, match=r"--compare onnxruntime failed \(BrokenProcessPool: "):
            measure.run_in(pool, "onnxruntime", *inputs)


def test_a_file_that_cannot_be_loaded(tmp_path, capfd):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with process("onnxruntime", str(tmp_path / "a.onnx"), 1, "fp32") as pool, pytest.raises(UserError, match="; leave onnxr"):
        measure.run_in(pool, "onnxruntime", np.zeros(1), np.zeros(1))
    assert "InvalidProtobuf" in capfd.readouterr().err
