"""evaluate() with batches and a detector that knows the results, up to the written files."""
import json
import logging
import os
import threading
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.dataset.annotations import load_coco
from src.dataset.loader import Batch, EvalLoader
from src.dataset.shapes import ensure_shapes
from src.detector import Predictor
from src.errors import UserError
from src.evaluation.coco import result_rows
from src.evaluation.detections import detections_of_image, overlapped
from src.evaluation.evaluate import evaluate, results_folder, write_results
from src.run.distributed import SingleProcess
from tests.helpers.tiny_networks import tiny_config, tiny_network

CATEGORY_IDS = [2, 5, 40]
CANVAS = (96, 128)
PROPOSALS = 12


class Loader:
    """Batches of two images, given by their numbers. `counts` has the number of images that are scored; the rest fill a batch."""

    def __init__(self, dataset, scales):
        self.num_images = len(dataset.records)
        self.numbers, self.counts = [[3, 3], [0, 1], [4, 3], [2, 2]], [1, 2, 1, 1]
        self.unreadable = {}
        self.dataset, self.scales = dataset, scales

    def batches(self):
        for numbers in self.numbers:
            records = [self.dataset.records[number] for number in numbers]
            image = np.zeros((2, *CANVAS, 3), np.uint8)
            image[:, 0, 0, 0] = numbers  # tells the detector the image's number
            sizes = np.array([(record.height, record.width) for record in records], np.int32)
            scale = self.scales[numbers]
            columns = Batch(image, (sizes * scale).astype(np.float32), np.zeros((2, 4, 4), np.float32),
                            np.zeros((2, 4), np.int32), np.zeros((2, 4), bool),
                            np.array([record.image_id for record in records], np.int64), sizes, scale,
                            np.array([record.path not in self.unreadable for record in records]))
            yield Batch(*map(Tensor, columns[:5]), *columns[5:])


@pytest.fixture
def case(tmp_path):
    """Five images with boxes of three classes, and a detector that finds them."""
    rng = np.random.default_rng(3)
    records, annotations = [], []
    sizes, scales = [(48, 64), (60, 30), (200, 256), (96, 128), (33, 128)], []
    outputs = []
    for number, (height, width) in enumerate(sizes):
        path = str(tmp_path / f"{number}.png")
        records.append(SimpleNamespace(image_id=1000 - number, path=path, height=height, width=width))
        scale = min(CANVAS[0] / height, CANVAS[1] / width)
        scales.append((np.round(height * scale) / height, np.round(width * scale) / width))
        boxes, scores = np.zeros((PROPOSALS, 3, 4)), np.zeros((PROPOSALS, 3))
        for row, label in enumerate(rng.integers(0, 3, number)):  # the first image has no box
            corner = rng.uniform(0, 0.6, 2) * (width, height)
            side = rng.uniform(0.2, 0.4, 2) * (width, height)
            annotations.append({"id": len(annotations) + 1, "image_id": 1000 - number, "bbox": [*corner, *side],
                                "category_id": CATEGORY_IDS[label], "iscrowd": 0, "area": side[0] * side[1]})
            boxes[row, label] = np.concatenate([corner, corner + side]) * np.array(scales[-1])[[1, 0, 1, 0]]
            scores[row, label] = 0.9 - 0.1 * row
        outputs.append((boxes, scores))
    coco_json = {"info": {}, "images": [{"id": record.image_id} for record in records], "annotations": annotations,
                 "categories": [{"id": i, "name": f"c{i}"} for i in CATEGORY_IDS]}
    dataset = SimpleNamespace(records=records, names=[f"c{i}" for i in CATEGORY_IDS], category_ids=CATEGORY_IDS,
                              annotation_path=str(tmp_path / "val.json"), image_dir=str(tmp_path), coco_json=coco_json)
    infer = SimpleNamespace(conf_threshold=0.05, nms_threshold=0.5, max_box_num=100)
    result = SimpleNamespace(dataset=dataset, cfg=SimpleNamespace(infer=infer, skip_bad_images=False),
                             outputs=outputs, folder=tmp_path / "out")
    result.loader = Loader(dataset, np.array(scales, np.float32))

    def predict(image, valid_size):
        picked = [outputs[number] for number in image.asnumpy()[:, 0, 0, 0]]
        assert valid_size.shape == (2, 2)
        return tuple(np.stack(arrays).astype(np.float32) for arrays in zip(*picked))

    def run(**more):
        evaluation = evaluate(predict, result.loader, dataset, result.cfg, SingleProcess())
        evaluation.metrics.update(more)
        write_results(str(result.folder), evaluation.metrics, evaluation.results)
        return evaluation.metrics

    result.run, result.predict = run, predict
    return result


def test_known_answers_score_one(case):
    metrics = case.run(checkpoint="some.ckpt")
    assert metrics["AP"] == pytest.approx(1.0) and metrics["AR100"] == pytest.approx(1.0)
    assert (metrics["images"], metrics["skipped_images"], metrics["checkpoint"]) == (5, 0, "some.ckpt")
    assert set(metrics["per_class"]) == {"c2", "c5", "c40"}
    folder = case.folder
    assert sorted(os.listdir(folder)) == ["bbox_results.json", "metrics.json"]
    assert json.loads((folder / "metrics.json").read_text()) == metrics

    rows = json.loads((folder / "bbox_results.json").read_text())
    annotations = case.dataset.coco_json["annotations"]
    assert len(rows) == len(annotations)
    for row, annotation in zip(rows, annotations):
        assert (row["image_id"], row["category_id"]) == (annotation["image_id"], annotation["category_id"])
        np.testing.assert_allclose(row["bbox"], annotation["bbox"], atol=1e-3)


def test_scores_that_are_not_finite_give_no_detection(case):
    case.outputs[4][1][:] = np.nan
    metrics = case.run()
    assert 0 < metrics["AR100"] < 1
    rows = json.loads((case.folder / "bbox_results.json").read_text())
    assert {row["image_id"] for row in rows} == {999, 998, 997}


@pytest.mark.parametrize("number", [3, 2])  # in the first and in the last batch
def test_unreadable_image_is_an_error_that_names_it(case, number):
    case.loader.unreadable[case.dataset.records[number].path] = "the file is empty"
    with pytest.raises(UserError, match=rf"{number}\.png: the file is empty.*--skip_bad_images True"):
        case.run()
    assert not (case.folder / "metrics.json").exists()


def test_unreadable_image_is_left_out_when_asked(case):
    case.loader.unreadable[case.dataset.records[3].path] = "the file is empty"
    case.cfg.skip_bad_images = True
    metrics = case.run()
    assert (metrics["images"], metrics["skipped_images"]) == (4, 1)
    assert metrics["AR100"] == pytest.approx(1.0)  # boxes of the skipped image do not count as missed
    rows = json.loads((case.folder / "bbox_results.json").read_text())
    assert {row["image_id"] for row in rows} == {999, 998, 996}


def test_the_network_runs_on_the_next_batch_while_results_are_computed(case):
    """The results of batch k wait until the network has started on batch k + 1. It starts on batch k + 2 after these results."""
    calls, batch_of_image, started = [], iter([0, 1, 1, 2, 3]), [threading.Event() for _ in range(4)]

    class Infer:
        nms_threshold, max_box_num = 0.5, 100

        @property
        def conf_threshold(self):  # is read once per image
            batch = next(batch_of_image)
            assert batch == 3 or started[batch + 1].wait(20)
            calls.append(("results", batch))
            return 0.05

    def predict(image, valid_size):
        number = len([name for name, _ in calls if name == "network"])
        calls.append(("network", number))
        started[number].set()
        return case.predict(image, valid_size)

    case.cfg.infer = Infer()
    assert evaluate(predict, case.loader, case.dataset, case.cfg, SingleProcess()).metrics["AP"] == pytest.approx(1.0)
    assert calls == [("network", 0), ("network", 1), ("results", 0), ("network", 2), ("results", 1), ("results", 1),
                     ("network", 3), ("results", 2), ("results", 3)]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_of_any_batch_ends_the_evaluation(failing):
    def results(number):
        return 1 // (number - failing)

    with pytest.raises(ZeroDivisionError):
        list(overlapped(results, [(0,), (1,), (2,)]))
    assert not any(thread.name.startswith("outputs") for thread in threading.enumerate())
    assert list(overlapped(results, [])) == []


@pytest.mark.parametrize("batch_size", [2, 5, 8])  # an incomplete last batch, a single batch, a single incomplete batch
def test_results_equal_those_of_one_batch_after_another(tmp_path, batch_size):
    """With a real network and five images."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ensure_shapes(str(tmp_path / "shapes"), 1, 5, 64, 96, 0)
    cfg = tiny_config(ms_mode=1, batch_size=batch_size)
    dataset = load_coco(f"{tmp_path}/shapes/annotations/instances_val2017.json", f"{tmp_path}/shapes/val2017")
    loader, predictor = EvalLoader(dataset, cfg), Predictor(tiny_network(cfg, len(dataset.names)), cfg)
    expected = []
    for number, count in enumerate(loader.counts):
        batch = loader[number]
        outputs = predictor(Tensor(batch.image), Tensor(batch.valid_size))
        for row, (boxes, scores) in enumerate(zip(*outputs)):
            if row < count:
                found = detections_of_image(boxes, scores, cfg.infer, batch.scale[row], batch.original_size[row])
                expected += result_rows(int(batch.image_id[row]), *found, dataset.category_ids)
    assert sum(loader.counts) == 5 and len(expected) > 50
    assert json.dumps(evaluate(predictor, loader, dataset, cfg, SingleProcess()).results) == json.dumps(expected)


def test_no_readable_image_at_all(case):
    case.loader.unreadable = {record.path: "the file is empty" for record in case.dataset.records}
    case.cfg.skip_bad_images = True
    with pytest.raises(UserError, match="no image of"):
        case.run()


@pytest.mark.parametrize(("numbers", "counts"), [
    ([[0, 1], [2, 3], [3, 3]], [2, 2, 1]), ([[0, 1], [2, 3]], [2, 2]), ([[0, 1], [2, 2], [3, 4]], [2, 2, 2])])
def test_every_image_once_or_an_internal_error(case, numbers, counts):
    case.loader.numbers, case.loader.counts = numbers, counts
    with pytest.raises(RuntimeError, match="internal error"):
        case.run()


def test_folder_that_cannot_be_made(case):
    case.folder.write_text("a file, not a folder")
    with pytest.raises(UserError, match="--save_dir"):
        case.run()


def test_a_folder_per_checkpoint_and_data_set(tmp_path, caplog, monkeypatch):
    """Results of other paths with the same names are kept; incomplete results, and results of the same paths, are replaced."""
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)
    caplog.set_level(logging.INFO)
    cases = [("a/best.ckpt", "x/val.json", "best/val"), ("a/best.ckpt", "y/val.json", "best/val_2"),
             ("b/best.ckpt", "x/val.json", "best/val_3"), ("a/last.v2.ckpt", "x/val.json", "last.v2/val"),
             ("a/best.ckpt", "x/test.json", "best/test"), ("b/best.ckpt", "x/val.json", "best/val_3")]
    for checkpoint, annotations, expected in cases:
        caplog.clear()
        folder = results_folder(str(tmp_path), checkpoint, SimpleNamespace(annotation_path=annotations))
        assert folder == str(tmp_path / "eval" / expected)
        assert caplog.text.count("has the results of another checkpoint or data set") == ("val_" in expected)
        write_results(folder, {"checkpoint": checkpoint, "annotations": os.path.abspath(annotations)}, [])
    (tmp_path / "eval/best/val/metrics.json").write_text("{")
    assert results_folder(str(tmp_path), *cases[1][:1], SimpleNamespace(annotation_path="y/val.json")).endswith("best/val")
