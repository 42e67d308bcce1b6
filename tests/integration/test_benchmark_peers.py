"""tools/benchmark.py --compare: the exported network, running it in other programs, and the comparison with this program."""
import importlib.util
import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from src.config import with_settings
from src.detector import Predictor, build_detector
from src.errors import UserError
from src.run.environment import DEFAULTS
from tests.helpers.tiny_networks import NUM_CLASSES, tiny_config, tiny_inputs, tiny_network
from tools.benchmarking import peers
from tools.benchmarking.measure import noise_batch
from tools.benchmarking.peer_process import PEERS

# OpenVINO in bf16 fails with the instruction limit that is set for MindSpore.
ENVIRONMENT = {name: value for name, value in {**os.environ, "OWN_VARIABLE": "own"}.items() if name not in DEFAULTS}


def if_installed(name):
    missing = importlib.util.find_spec(name) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed"))


@pytest.fixture(scope="module")
def detector():
    """Configuration, network on the kernels, two batches of two images, and their outputs, in PyNative mode."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    cfg = tiny_config(ms_mode=1)
    network = tiny_network(cfg)
    predictor = Predictor(network, cfg)
    batch, (image, valid_size) = noise_batch(cfg, NUM_CLASSES), tiny_inputs(2)
    batches = [batch._replace(image=ms.Tensor(image), valid_size=ms.Tensor(valid_size)) for image in (image, image[::-1].copy())]
    outputs = [predictor(batch.image, batch.valid_size) for batch in batches]
    return cfg, network, batches, outputs


@pytest.mark.parametrize("name", [if_installed(name) for name in PEERS])
def test_a_peer_computes_the_same_and_has_a_ratio(detector, name):
    cfg, network, batches, outputs = detector
    images, answers, calls = [batch.image.asnumpy() for batch in batches], itertools.cycle(outputs), []

    def predictor(image, _):
        calls.append(image.asnumpy())
        return next(answers)
    result = peers.compare([name], network, cfg, predictor, batches, 4, ENVIRONMENT)
    for number, image in enumerate(calls):  # the batches in turn; the first call is the warm-up
        np.testing.assert_array_equal(image, images[number % 2])
    peer = result["peers"][name]
    assert len(calls) == 5 and result["threads"] == len(os.sched_getaffinity(0)) and result["mix"] is False
    assert peer["ratio"] == result["seconds"] / peer["seconds"]
    assert peer["dtype"] == "fp32" and peer["version"][0].isdigit()
    assert peer["agreement"]["alone"] == 0 and peer["agreement"]["rows"] == 2 * 2 * 40
    assert 0 < peer["agreement"]["box_difference"] < 0.1 and peer["agreement"]["score_difference"] < 1e-3


def test_other_outputs_are_refused(detector):
    """In fp32 even one proposal of 80 is refused; with mixed precision, the outputs of another network."""
    cfg, network, batches, outputs = detector
    (boxes, scores), onnxruntime = outputs[0], SimpleNamespace(name="onnxruntime")
    moved = boxes.copy(), scores
    moved[0][0, 0] += 1
    with pytest.raises(UserError, match="--compare onnxruntime: it computes something else .* 158 of 160 rows of both have"):
        peers.compare(["onnxruntime"], network, cfg, lambda *_: moved, batches[:1], 1, ENVIRONMENT)
    mixed = with_settings(cfg, {"mix": True})
    result = peers.compare(["onnxruntime"], network, mixed, lambda *_: moved, batches[:1], 1, ENVIRONMENT)
    assert result["mix"] and result["peers"]["onnxruntime"]["dtype"] == "fp32"
    for exact, shift in ((True, 0.05), (False, 3)):
        result = peers.check(onnxruntime, (boxes + shift, scores), (boxes, scores), exact)
        assert result.alone == 0 and result.box_difference == pytest.approx(shift, rel=0.01)
    for wrong in ((boxes + 100, scores), (boxes, scores * np.nan)):
        with pytest.raises(UserError, match=r": 0 of 160 rows .* \(allowed: 50%\); leave onnxruntime out"):
            peers.check(onnxruntime, (boxes, scores), wrong, exact=False)


def test_the_peers_get_fp32_weights_whatever_this_program_computes_in(detector, tmp_path):
    cfg, network, [batch, _], _ = detector
    inputs = batch.image.asnumpy(), batch.valid_size.asnumpy()
    mixed = with_settings(cfg, {"mix": True})
    half = build_detector(mixed, NUM_CLASSES)
    for parameter, same in zip(half.get_parameters(), network.get_parameters()):
        parameter.set_data(same.value())
    for name, of, settings in (("fp32", network, cfg), ("half", half, mixed)):
        peers.write_onnx(str(tmp_path / name), of, settings, *inputs)
    assert (tmp_path / "fp32").read_bytes() == (tmp_path / "half").read_bytes()


def test_a_peer_has_its_environment_and_ends_with_its_block(detector, tmp_path, capfd):
    cfg, network, [batch, _], _ = detector
    inputs, path = (batch.image.asnumpy(), batch.valid_size.asnumpy()), str(tmp_path / "a.onnx")
    peers.write_onnx(path, network, cfg, *inputs)
    with peers.Peer("onnxruntime", path, 1, "fp32", ENVIRONMENT) as peer:
        variables = Path(f"/proc/{peer.process.pid}/environ").read_bytes().split(b"\0")
        assert b"OWN_VARIABLE=own" in variables
        assert "libmindspore" not in Path(f"/proc/{peer.process.pid}/maps").read_text()
    assert peer.process.returncode is not None
    with peers.Peer("onnxruntime", path, 1, "fp32", ENVIRONMENT) as peer:
        peer.process.kill()
        peer.process.wait()
        with pytest.raises(UserError, match="onnxruntime: its process has ended with status -9"):
            peer(*inputs)
    Path(path).write_bytes(b"no model")
    with pytest.raises(UserError, match="its process has ended with status 1, for the reason above"), \
            peers.Peer("onnxruntime", path, 1, "fp32", ENVIRONMENT):
        pass
    assert "InvalidProtobuf" in capfd.readouterr().err
