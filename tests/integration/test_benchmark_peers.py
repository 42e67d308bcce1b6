"""tools/benchmark.py --compare: the exported network, running it in other programs, and the comparison with this program."""
import importlib.util
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


class Recorded:
    """Replaces a Predictor: returns its outputs and records the image of each call. The first three calls take 5 s of its clock,
    later calls 1 s."""

    def __init__(self, batches, outputs):
        self.images, self.outputs, self.calls = [batch.image.asnumpy() for batch in batches], outputs, []
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def __call__(self, image, _):
        self.now += 5 if len(self.calls) < 3 else 1
        [number] = [number for number, known in enumerate(self.images) if np.array_equal(known, image.asnumpy())]
        self.calls.append(number)
        return self.outputs[number]


@pytest.fixture
def peer_calls(monkeypatch):
    """The (name, inputs) of all calls of peers. The peers run, but their measured seconds are replaced."""
    calls, call = [], peers.Peer.__call__

    def record(peer, *inputs):
        outputs = call(peer, *inputs)
        peer.seconds[-1] = 100.0 if len(peer.seconds) == 1 else float(len(peer.seconds))  # replaces the measured time
        calls.append((peer.name, *inputs))
        return outputs
    monkeypatch.setattr(peers.Peer, "__call__", record)
    return calls


@pytest.mark.parametrize("name", [if_installed(name) for name in PEERS])
def test_a_peer_computes_the_same_in_turn_and_has_a_ratio(detector, peer_calls, monkeypatch, name):
    cfg, network, batches, outputs = detector
    predictor = Recorded(batches, outputs)
    monkeypatch.setattr(peers, "time", predictor)
    result = peers.compare([name], network, cfg, predictor, batches, 4, ENVIRONMENT)
    assert predictor.calls == [0, 1, 0, 1, 0]  # the batches in turn; the first call is the warm-up
    assert [call[0] for call in peer_calls] == [name] * 5
    for number, (_, image, valid_size) in zip(predictor.calls, peer_calls):
        assert np.array_equal(image, predictor.images[number]) and valid_size.tolist() == [[48, 64], [56, 64]]
    peer = result["peers"][name]
    assert result["threads"] == len(os.sched_getaffinity(0)) and result["mix"] is False
    assert result["seconds"] == 3  # the median of 5, 5, 1 and 1
    assert peer["seconds"] == 3.5  # the median of 2, 3, 4 and 5
    assert peer["ratio"] == pytest.approx(result["seconds"] / 3.5)
    assert peer["dtype"] == "fp32" and peer["version"][0].isdigit()
    assert peer["agreement"]["alone"] == 0 and peer["agreement"]["rows"] == 2 * 2 * 40
    assert 0 < peer["agreement"]["box_difference"] < 0.1 and peer["agreement"]["score_difference"] < 1e-3


def test_other_outputs_are_refused(detector):
    """In fp32 even one proposal of 80 is refused; with mixed precision, the outputs of another network."""
    cfg, network, batches, outputs = detector
    moved = [(boxes.copy(), scores) for boxes, scores in outputs]
    moved[0][0][0, 0] += 1
    with pytest.raises(UserError, match="--compare onnxruntime: it computes something else .* 158 of 160 rows of both have"):
        peers.compare(["onnxruntime"], network, cfg, Recorded(batches, moved), batches, 1, ENVIRONMENT)
    mixed = with_settings(cfg, {"mix": True})
    result = peers.compare(["onnxruntime"], network, mixed, Recorded(batches, moved), batches, 1, ENVIRONMENT)
    assert result["mix"] and result["peers"]["onnxruntime"]["dtype"] == "fp32"
    (boxes, scores), onnxruntime = outputs[0], SimpleNamespace(name="onnxruntime")
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
    for name, of, settings in (("fp32", network, cfg), ("half", half, mixed), ("other", tiny_network(tiny_config(seed=5)), cfg)):
        peers.write_onnx(str(tmp_path / name), of, settings, *inputs)
    fp32, half, other = (Path(tmp_path / name).read_bytes() for name in ("fp32", "half", "other"))
    assert fp32 == half != other


@pytest.mark.parametrize("name", [if_installed("openvino")])
@pytest.mark.skipif("avx512_bf16" not in Path("/proc/cpuinfo").read_text(), reason="this processor has no bf16 products")
def test_openvino_computes_in_bf16(detector, tmp_path, name):
    cfg, network, [batch, _], [outputs, _] = detector
    inputs = batch.image.asnumpy(), batch.valid_size.asnumpy()
    peers.write_onnx(str(tmp_path / "a.onnx"), network, cfg, *inputs)
    with peers.Peer(name, str(tmp_path / "a.onnx"), 1, "bf16", ENVIRONMENT) as peer:
        assert peer.dtype == "bf16"
        boxes, _ = peer(*inputs)
    assert not np.allclose(boxes, outputs[0], rtol=0, atol=0.1)


def test_a_peer_has_its_environment_and_ends_with_its_block(detector, tmp_path):
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


def test_a_peer_that_ends_is_named(tmp_path, capfd):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="--compare onnxruntime: its process has ended with status 1, for the reason above"), \
            peers.Peer("onnxruntime", str(tmp_path / "a.onnx"), 1, "fp32", ENVIRONMENT):
        pass
    assert "InvalidProtobuf" in capfd.readouterr().err
