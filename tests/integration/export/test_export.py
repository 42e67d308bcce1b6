"""export.py: exported files compute the same as an evaluation, and export.py leaves no other files behind."""
import sys

import cv2
import mindspore as ms
import numpy as np
import onnxruntime
import pytest

from src.checkpoint import write_checkpoint
from src.config.command_line import parse_export_args
from src.dataset.shapes import draw_scene
from src.detector import Predictor
from src.errors import UserError
from src.export.agreement import agreement
from src.export.files import check_possible, export_networks, network_batches, run_network, sample_images, write_network
from src.models.faster_rcnn import InferenceForward, to_mixed_precision
from tests.helpers.scripts import run_script
from tests.helpers.small_detector import OLDER_RECIPE
from tests.helpers.tiny_networks import NUM_CLASSES, TINY_DETECTOR, tiny_config, tiny_inputs, tiny_network


def predicted(network, cfg, image, valid_size):
    """Return the network's outputs as eval.py computes them, which must include some confident boxes to compare.

    In fp32 there is no graph, because compilation takes most of the time. Half precision uses MindSpore's operators like the
    file, because other operators order proposals differently.
    """
    ms.set_context(mode=ms.GRAPH_MODE if cfg.mix else ms.PYNATIVE_MODE)
    run_network = (InferenceForward(to_mixed_precision(network), cfg, image.shape[1:3]).set_train(False) if cfg.mix
                   else Predictor(network, cfg))
    boxes, scores = (np.asarray(output) for output in run_network(ms.Tensor(image), ms.Tensor(valid_size)))
    ms.set_context(mode=ms.GRAPH_MODE)
    assert (scores.max(axis=2) > 0.3).sum() > 5 and (np.ptp(boxes, axis=1) > 5).all()
    return boxes, scores


@pytest.mark.parametrize(("mindir", "mix", "canvases", "names"), [
    (False, False, "[[64,64],[32,96]]", ["detector_32x96.onnx", "detector_64x64.onnx"]),
    pytest.param(True, True, "[64,64]", ["detector.mindir"], marks=pytest.mark.slow)])
def test_file_computes_what_an_evaluation_computes(tmp_path, mindir, mix, canvases, names):
    ms.set_device("CPU")
    write_checkpoint(str(tmp_path / "tiny.ckpt"), {p.name: p for p in tiny_network(tiny_config()).get_parameters()})
    done = run_script("export.py", "--config", TINY_DETECTOR, "--device_target", "CPU", "--mix", mix, "--checkpoint_path",
                      tmp_path / "tiny.ckpt", "--mindir", mindir, "--raw", True, "--output",
                      tmp_path / "new" / f"detector.{'mindir' if mindir else 'onnx'}", "-o", f"data.target_size={canvases}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("with the network on generated images: 80 of 80 rows of both have a counterpart") == len(names)
    assert f"boxes float32 (1, 40, {NUM_CLASSES}, 4)" in done.stdout
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    path, cfg, inputs = tmp_path / "new" / names[-1], tiny_config(mix=mix), tiny_inputs(1)
    assert path.stat().st_mode & 0o777 == 0o644
    if not mix:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert [(entry.name, entry.type, entry.shape) for entry in session.get_inputs()] == [
            ("image", "tensor(uint8)", [1, 64, 64, 3]), ("valid_size", "tensor(float)", [1, 2])]
    found, expected = run_network(str(path), [inputs]), predicted(tiny_network(cfg), cfg, *inputs)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=0.1 if mix else 1e-3)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-2 if mix else 1e-4)


def test_onnx_of_another_detector(tmp_path):
    """Bottlenecks, nearest upsampling, torchvision's stem pooling, unaligned RoIs on two levels, two images."""
    cfg = tiny_config(backbone__name="det_resnet50", backbone__in_channels=None, backbone__fpn__upsample_mode="nearest",
                      backbone__stem_pool="torchvision", bbox_head__roi_extractor__aligned=False,
                      bbox_head__roi_extractor__operator="roi_align",
                      rpn_head__test_proposal__min_size=70.0, data__target_size=[256, 256],
                      rpn_head__anchor_generator__anchor_sizes=[[32], [64], [96], [128], [256]])
    network, inputs = tiny_network(cfg), tiny_inputs(2, 256)
    path = str(tmp_path / "a.onnx")
    write_network(path, InferenceForward(network, cfg, (256, 256)), *inputs)
    boxes, scores = predicted(network, cfg, *inputs)
    assert (scores.max(axis=2) == 0).any()  # some proposals are too small
    result = agreement(run_network(path, [inputs]), (boxes, scores))
    assert result.alone == 0 and result.box_difference < 5e-3


def test_mindir_of_the_older_recipe(tmp_path):
    """Padding is black, NMS runs over proposals of all levels, proposals may be in the padding, and boxes are not clipped."""
    cfg = tiny_config(**OLDER_RECIPE)
    network, inputs = tiny_network(cfg), tiny_inputs(2)
    path = str(tmp_path / "a.mindir")
    write_network(path, InferenceForward(network, cfg, (64, 64)).set_train(False), *inputs)
    boxes, scores = predicted(network, cfg, *inputs)
    counts = (scores.max(axis=2) > 0).sum(axis=1)
    assert (counts < scores.shape[1]).all() and (boxes < 0).any() and (boxes > 64).any()
    result = agreement(run_network(path, [inputs]), (boxes, scores))
    assert result.alone == 0 and result.box_difference < 5e-3


def test_onnx_takes_no_other_backbone_than_resnets(tmp_path):
    cfg = tiny_config(backbone__name="mobilenet_v3_small_100", backbone__in_channels=None)
    with pytest.raises(UserError, match=r"backbone.name: the backbone has a cell \w+, which cannot be written as ONNX operators"):
        write_network(str(tmp_path / "a.onnx"), InferenceForward(tiny_network(cfg), cfg, (64, 64)), *tiny_inputs(1))
    assert not list(tmp_path.iterdir())


def test_failed_check_leaves_the_file_of_before(tmp_path):
    """The weights are not finite, so no output can be compared."""
    path = tmp_path / "a.onnx"
    cfg = tiny_config(output=str(path), batch_size=1)
    network = tiny_network(cfg)
    network.box_head.deltas.bias.set_data(ms.Tensor(np.full(4 * NUM_CLASSES, np.nan, np.float32)))
    path.write_bytes(b"earlier")
    ms.set_context(mode=ms.PYNATIVE_MODE)  # export.py also uses it in fp32
    with pytest.raises(UserError, match="a.onnx is not written, .*: 0 of 80 rows of both have a counterpart"):
        export_networks(cfg, network, list(tiny_inputs(1)[0]))
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"] and path.read_bytes() == b"earlier"


INT8 = "--quantize True --image a.png"


@pytest.mark.parametrize(("argv", "sentence"), [
    ("", "--output is missing; give a path that ends with .onnx, or --mindir True."),
    ("--output a.onnx --mindir True", "--output is a.onnx; give a path that ends with .mindir, or --mindir False."),
    ("--output file/a.onnx", "cannot create the folder file (File exists); give file/a.onnx another path."),
    ("--output a+b.mindir --mindir True", "MindSpore cannot write 'a+b.mindir'"),
    ("--output a.onnx --mix True", "computes in fp32; leave out --mix True"),
    (f"--output a.mindir --mindir True {INT8}", "--quantize True is for ONNX (without --raw and --mindir), with a single canvas"),
    ("--output a.onnx --quantize True", "needs --image"),
    (f"--output a.onnx {INT8} -o data.target_size=[[64,64],[32,96]]", "--quantize True is for")])
def test_refused_before_anything_takes_time(argv, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError) as error:
        check_possible(parse_export_args(argv.split()))
    assert sentence in str(error.value) and [path.name for path in tmp_path.iterdir()] == ["file"]
    check_possible(parse_export_args(["--output", str(tmp_path / "new" / "folder" / "a.onnx")]))
    assert (tmp_path / "new" / "folder").is_dir()


def test_images_fill_batches(tmp_path):
    cfg = tiny_config(batch_size=2)
    drawn = [draw_scene(np.random.default_rng(number), 48, 64)[0] for number in range(3)]
    for number, pixels in enumerate(drawn):
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels[:, :, ::-1])
    batches = network_batches(sample_images([str(tmp_path)], 2), cfg, (64, 64))
    shown = [image[:48] for images, _ in batches for image in images]
    for image, pixels in zip(shown, [*drawn, drawn[0]]):
        np.testing.assert_array_equal(image, pixels)
    assert len(shown) == 4 and all((valid == [[48, 64], [48, 64]]).all() for _, valid in batches)
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match="1.png: the file is empty; give another --image"):
        sample_images([str(tmp_path)], 2)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_onnx_needs_its_packages(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"ONNX needs the package {package}, .*: pip install onnx onnxruntime .* --mindir True"):
        check_possible(tiny_config(output="a.onnx"))


def test_agreement_is_blind_to_the_order_and_sees_all_else():
    base = np.arange(100, dtype=np.float32)
    boxes = np.broadcast_to((10 * base).reshape(1, 100, 1, 1), (1, 100, 2, 4)).copy()
    scores = np.broadcast_to((base / 100).reshape(1, 100, 1), (1, 100, 2))
    order = np.r_[1, 0, 2:100]
    swapped = agreement((boxes[:, order], scores[:, order]), (boxes, scores))
    assert swapped == (0, 0, 0, 200) and swapped.holds()
    moved = boxes.copy()
    moved[0, 3, 1, 2] += 0.005
    assert agreement((moved, scores), (boxes, scores)).box_difference == pytest.approx(0.005, rel=1e-2)
    moved[0, 3, 1, 2] += 1
    result = agreement((moved, scores), (boxes, scores))
    assert result.alone == 2 and result.holds()  # one row on each side, as a tie may cause
    assert not agreement((moved[:, :40], scores[:, :40]), (boxes[:, :40], scores[:, :40])).holds()  # few rows: no exception
    doubled = np.r_[0, 0, 2:100]  # a row that occurs twice in one output and once in the expected output
    assert agreement((boxes[:, doubled], scores[:, doubled]), (boxes, scores)).alone == 1
