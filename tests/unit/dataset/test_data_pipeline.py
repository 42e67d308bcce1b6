import json
import logging
import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import psutil
import pytest

from src.dataset.annotations import load_coco
from src.dataset.pipeline import EvalPipeline, TrainPipeline
from src.dataset.sources import COLUMNS, NOTHING_READABLE, order
from src.dataset.unreadable import UnreadableLog
from src.errors import UserError
from tests.helpers.paths import ROOT

AUGMENTED = ({"RandomFlip": {"prob": 0.5}}, {"RandomHSV": {"hgain": 0.2, "sgain": 0.5, "vgain": 0.5}})


def batches(pipeline):
    return [{name: column.asnumpy().copy() for name, column in zip(COLUMNS, batch)} for batch in pipeline]


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        for name in COLUMNS:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_order_is_a_permutation_of_its_own_for_each_seed_and_epoch():
    orders = [order(seed, epoch, 100) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert all(sorted(one) == list(range(100)) for one in orders)
    assert len({tuple(one) for one in orders}) == 6
    np.testing.assert_array_equal(order(1, 2, 100), orders[5])


def test_columns_of_a_batch(write_images, make_cfg):
    pipeline = EvalPipeline(load_coco(*write_images(3, without=[1])), make_cfg(target_size=(80, 90), batch_size=3))
    batch, = batches(pipeline)
    shapes = {name: (column.dtype.name, column.shape) for name, column in batch.items()}
    assert shapes == {
        "image": ("uint8", (3, 80, 90, 3)), "valid_size": ("float32", (3, 2)), "boxes": ("float32", (3, 4, 4)),
        "labels": ("int32", (3, 4)), "mask": ("bool", (3, 4)), "image_id": ("int64", (3,)),
        "original_size": ("int32", (3, 2)), "scale": ("float32", (3, 2)), "unreadable": ("int32", (3,))}
    assert (batch["image"][2, :60, :90] == (20, 100, 200)).all() and (batch["image"][2, 60:] == 0).all()
    np.testing.assert_array_equal(batch["valid_size"], [[60, 90]] * 3)
    np.testing.assert_array_equal(batch["scale"], [[1.5, 1.5]] * 3)
    np.testing.assert_array_equal(batch["original_size"], [[40, 60]] * 3)
    np.testing.assert_array_equal(batch["image_id"], [100, 101, 102])
    np.testing.assert_array_equal(batch["boxes"][2], [[3, 3, 18, 33], [0] * 4, [0] * 4, [0] * 4])
    np.testing.assert_array_equal(batch["labels"], [[1, -1, -1, -1], [-1] * 4, [1, -1, -1, -1]])
    np.testing.assert_array_equal(batch["mask"], [[True, False, False, False], [False] * 4, [True] + [False] * 3])
    np.testing.assert_array_equal(batch["unreadable"], [-1] * 3)


def test_every_epoch_shows_its_permutation_cut_to_whole_batches(write_images, make_cfg):
    pipeline = TrainPipeline(load_coco(*write_images(8, without=[3])), make_cfg(epochs=3))
    assert pipeline.steps_per_epoch == 3 and [r.image_id for r in pipeline.records][3] == 104
    ids = np.array([record.image_id for record in pipeline.records])
    found = np.concatenate([batch["image_id"] for batch in batches(pipeline)]).reshape(3, 6)
    for epoch in range(3):
        np.testing.assert_array_equal(found[epoch], ids[order(7, epoch, 7)[:6]])


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_resumed_run_sees_the_same_batches(write_images, make_cfg, num_workers):
    dataset = load_coco(*write_images(7))
    whole = batches(TrainPipeline(dataset, make_cfg(item_transforms=AUGMENTED, epochs=3)))
    cfg = make_cfg(item_transforms=AUGMENTED, epochs=3, num_workers=num_workers)
    assert len(whole) == 9
    for start in (0, 4):
        assert_same(batches(TrainPipeline(dataset, cfg, start_step=start)), whole[start:])


@pytest.mark.parametrize("start", [0, 5])
def test_a_batch_too_large_for_the_shared_memory_is_the_same(write_images, make_cfg, start):
    dataset = load_coco(*write_images(7))
    settings = {"item_transforms": AUGMENTED, "epochs": 3, "target_size": (400, 600)}
    whole = batches(TrainPipeline(dataset, make_cfg(num_workers=1, **settings), start_step=start))
    rows = batches(TrainPipeline(dataset, make_cfg(num_workers=2, max_rowsize=1, **settings), start_step=start))
    assert_same(rows, whole)


def test_a_run_that_is_over_has_no_batches(write_images, make_cfg):
    assert batches(TrainPipeline(load_coco(*write_images(4)), make_cfg(), start_step=4)) == []


def test_augmentation_differs_between_epochs_and_seeds(write_images, make_cfg):
    dataset = load_coco(*write_images(4))
    runs = [batches(TrainPipeline(dataset, make_cfg(item_transforms=AUGMENTED, seed=seed, batch_size=4, epochs=2)))
            for seed in (1, 2)]
    pixels = []
    for batch in (batch for run in runs for batch in run):
        pixels.append(tuple(batch["image"][np.argsort(batch["image_id"]), 0, 0].ravel()))
    assert len(set(pixels)) == 4


def test_batches_stay_valid_after_the_pipeline_has_moved_on(write_images, make_cfg):
    pipeline = TrainPipeline(load_coco(*write_images(6)), make_cfg(num_workers=2))
    kept = list(pipeline)
    assert_same([{name: column.asnumpy() for name, column in zip(COLUMNS, batch)} for batch in kept],
                batches(pipeline))


def test_evaluation_fills_up_the_last_batch_with_the_last_record(write_images, make_cfg):
    pipeline = EvalPipeline(load_coco(*write_images(5, without=[0])), make_cfg(batch_size=3))
    assert pipeline.num_images == 5
    found = batches(pipeline)
    np.testing.assert_array_equal([batch["image_id"] for batch in found], [[100, 101, 102], [103, 104, 104]])
    assert_same(batches(pipeline), found)


def test_padding_grows_to_what_the_data_needs(write_coco, make_cfg, caplog):
    image = {"id": 1, "file_name": "a.png", "height": 40, "width": 60}
    boxes = [{"image_id": 1, "category_id": 2, "bbox": [i, i, 5, 5]} for i in range(7)]
    dataset = load_coco(*write_coco([image], boxes))
    with caplog.at_level(logging.INFO, "faster_rcnn"):
        pipeline = TrainPipeline(dataset, make_cfg(batch_size=1))
    assert [r.getMessage() for r in caplog.records if "padding" in r.getMessage()] == [
        "LabelsPadding.padding_size grows from 4 to 7, the most boxes that an image has"]
    batch = batches(pipeline)[0]
    assert batch["boxes"].shape == (1, 7, 4) and batch["mask"].all()


def test_batch_larger_than_the_data_set(write_images, make_cfg):
    with pytest.raises(UserError, match="batch_size is 5, but .* only 4 images"):
        TrainPipeline(load_coco(*write_images(4)), make_cfg(batch_size=5))


def test_processes_share_each_training_batch(write_images, make_cfg):
    """Two processes with batches of 2 see the rows of one process with batches of 4, step by step."""
    dataset = load_coco(*write_images(13))
    whole = batches(TrainPipeline(dataset, make_cfg(item_transforms=AUGMENTED, batch_size=4, epochs=2)))
    cfg = make_cfg(item_transforms=AUGMENTED, batch_size=2, epochs=2)
    parts = [batches(TrainPipeline(dataset, cfg, rank=rank, size=2)) for rank in (0, 1)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 6
    joined = [{name: np.concatenate([first[name], second[name]]) for name in first} for first, second in zip(*parts)]
    assert_same(joined, whole)


@pytest.mark.parametrize(("images", "batch_size", "size"), [(37, 2, 1), (37, 2, 4), (37, 3, 3), (4, 2, 2), (3, 2, 4)])
def test_processes_evaluate_each_image_once(write_images, make_cfg, images, batch_size, size):
    dataset = load_coco(*write_images(images))
    cfg, seen = make_cfg(batch_size=batch_size), []
    for rank in range(size):
        pipeline = EvalPipeline(dataset, cfg, rank, size)
        rows = np.concatenate([[], *(batch["image_id"] for batch in batches(pipeline))])
        assert len(rows) % batch_size == 0
        seen += rows[:pipeline.num_images].tolist()
        # Whole batches of a single process: a image keeps its neighbours.
        assert ((rows[::batch_size] - 100) % batch_size == 0).all()
    assert sorted(seen) == [100 + i for i in range(images)]


@pytest.fixture
def damaged(write_images):
    """Six records, of which number 2 and 3 are missing and 5 is empty; returns (data set, image folder)."""
    path, folder = write_images(6)
    dataset = load_coco(path, folder)
    os.remove(os.path.join(folder, "2.png"))
    os.remove(os.path.join(folder, "3.png"))
    open(os.path.join(folder, "5.png"), "w").close()
    return dataset, folder


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_puts_the_next_readable_record_in_the_place_of_an_unreadable_one(damaged, make_cfg, num_workers):
    cfg = make_cfg(epochs=2, num_workers=num_workers)
    found = batches(TrainPipeline(damaged[0], cfg))
    meant = np.concatenate([order(7, epoch, 6) for epoch in range(2)])
    replacement = np.array([0, 1, 4, 4, 4, 0])
    np.testing.assert_array_equal(np.concatenate([b["image_id"] for b in found]), 100 + replacement[meant])
    wanted = np.where(replacement[meant] == meant, -1, meant)
    np.testing.assert_array_equal(np.concatenate([b["unreadable"] for b in found]), wanted)


def test_evaluation_puts_a_black_image_in_the_place_of_an_unreadable_one(damaged, make_cfg):
    found = batches(EvalPipeline(damaged[0], make_cfg(batch_size=3)))
    np.testing.assert_array_equal([b["unreadable"] for b in found], [[-1, -1, 2], [3, -1, 5]])
    np.testing.assert_array_equal([b["image_id"] for b in found], [[100, 101, 102], [103, 104, 105]])
    assert not found[0]["image"][2].any() and found[0]["image"][1].any()


@pytest.mark.parametrize(("height", "width", "valid_size"), [(40, 60, (43, 64)), (31, 60, (33, 64)), (65000, 65000, (64, 64)),
                                                            (2**31 - 1, 1, (64, 1)), (1, 2**31 - 1, (1, 64))])
def test_the_row_of_an_unreadable_image_takes_no_memory_of_its_annotated_size(write_coco, make_cfg, height, width, valid_size):
    good = {"id": 1, "file_name": "a.png", "height": 40, "width": 60}
    path, folder = write_coco([good], [])
    with open(path) as file:
        content = json.load(file)
    content["images"].append({"id": 2, "file_name": "gone.png", "height": height, "width": width})
    content["annotations"].append({"image_id": 2, "category_id": 5, "bbox": [0, 0, width, height]})
    with open(path, "w") as file:
        json.dump(content, file)
    tracemalloc.start()
    _, row = batches(EvalPipeline(load_coco(path, folder), make_cfg(batch_size=1)))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert row["unreadable"] == [1] and not row["image"].any()
    np.testing.assert_array_equal(row["valid_size"], [valid_size])
    np.testing.assert_array_equal(row["original_size"], [(height, width)])
    np.testing.assert_allclose(row["scale"], [(valid_size[0] / height, valid_size[1] / width)], rtol=1e-6)
    np.testing.assert_allclose(row["boxes"][0, 0], (0, 0, *valid_size[::-1]), rtol=1e-6)


def test_when_no_file_can_be_read_the_rows_say_so(damaged, make_cfg):
    dataset, folder = damaged
    for name in ("0.png", "1.png", "4.png"):
        os.remove(os.path.join(folder, name))
    found = np.concatenate([batch["unreadable"] for batch in batches(TrainPipeline(dataset, make_cfg(epochs=1)))])
    assert list(found) == [NOTHING_READABLE] * 6


def test_unreadable_files_are_named_once_with_their_reason(damaged, caplog):
    dataset, folder = damaged
    log = UnreadableLog(dataset.records)
    first = log.update(np.array([-1, 5, 2, 5]))
    assert first == [(os.path.join(folder, "2.png"), "cannot be opened (No such file or directory)"),
                     (os.path.join(folder, "5.png"), "the file is empty")]
    assert log.update(np.array([5, -1])) == [] and log.count == 2
    assert [path for path, _ in log.update(np.array([3]))] == [os.path.join(folder, "3.png")]
    assert len(caplog.records) == 3 and log.count == 3


# With one processor the pipeline has no worker processes.
needs_workers = pytest.mark.skipif(os.cpu_count() < 2, reason="MindSpore starts no more workers than processors")


def worker_processes():
    return [process for process in psutil.Process().children(recursive=True)
            if process.status() != psutil.STATUS_ZOMBIE]


@needs_workers
def test_workers_end_when_the_consumer_stops_early(write_images, make_cfg):
    before = len(worker_processes())
    stream = iter(TrainPipeline(load_coco(*write_images(6)), make_cfg(epochs=100, num_workers=2)))
    next(stream)
    assert len(worker_processes()) >= before + 2
    stream.close()
    assert len(worker_processes()) == before


@needs_workers
def test_the_consumer_does_not_sleep_while_the_workers_are_slower(write_images, make_cfg, monkeypatch):
    naps, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: naps.append(seconds) or sleep(seconds))
    found = batches(TrainPipeline(load_coco(*write_images(6)), make_cfg(epochs=100, num_workers=2, prefetch_size=2)))
    # MindSpore's own queues make it about 35: no more than 8 batches are ready after each.
    assert len(found) == 300 and naps.count(0.1) < 10


SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
import src
from types import SimpleNamespace as N
import psutil
from src.dataset.annotations import load_coco
from src.dataset.pipeline import TrainPipeline
transforms = N(item_transforms=[{{"Resize": {{}}}}, {{"LabelsPadding": {{"padding_size": 4, "padding_value": -1}}}}])
cfg = N(seed=1, batch_size=2, epochs=500, num_workers=2, prefetch_size=4, max_rowsize=64, run_eval=False,
        data=N(target_size=[32, 32], train_transforms=transforms))
for batch in TrainPipeline(load_coco({path!r}, {folder!r}), cfg):
    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    {then}
"""


@needs_workers
@pytest.mark.parametrize(("then", "status"), [("sys.exit(0)", 0), ("raise KeyError('x')", 1), ("time.sleep(99)", -9)])
def test_no_process_is_left_behind_however_the_program_ends(write_images, then, status):
    path, folder = write_images(6)
    root = str(ROOT)
    script = SCRIPT.format(root=root, path=path, folder=folder, then=then)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as program:
        children = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
        assert len(children) >= 2
        if status == -9:
            program.kill()
        assert program.wait(timeout=30) == status
        if status == 0:
            assert program.stderr.read() == ""
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
