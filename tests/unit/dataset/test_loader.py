"""The order of images, independent of the workers, and the handling of unreadable images."""
import logging
import os
import threading
import time
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from src.dataset import loader as loader_module
from src.dataset.loader import Batch, EvalLoader, TrainLoader, padded_length
from src.errors import UserError

WIDE, UPRIGHT, SQUARE = (64, 96), (96, 64), (80, 80)
ONE, TWO = (WIDE,), (WIDE, UPRIGHT)
AUGMENTED = ({"RandomFlip": {"prob": 0.5}}, {"RandomHSV": {"hgain": 0.2, "sgain": 0.5, "vgain": 0.5}},
             {"RandomVerticalFlip": {"prob": 0.5}}, {"RandomRotate90": {"prob": 0.5}},
             {"RandomCrop": {"prob": 0.5, "min_scale": 0.5, "min_area": 0.5}},
             {"PhotometricDistortion": {"brightness": 32, "contrast": 0.5, "saturation": 0.5, "hue": 18}},
             {"Albumentations": {"transforms": [{"CLAHE": {"p": 0.5}}, {"RandomRotate90": {}}, {"GaussNoise": {}}]}})


def batches(loader, *start):
    return [arrays(batch) for batch in loader.batches(*start)]


def arrays(batch):
    return {name: np.array(column) for name, column in batch._asdict().items()}


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in Batch._fields}


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        for name in Batch._fields:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def plain_order(epoch, count):
    """Return the order of an epoch without repetition, as in earlier versions, so that their runs resume with the same images."""
    return np.random.default_rng([7, 2, epoch]).permutation(count)


def test_columns_of_a_batch(make_set, make_cfg):
    dataset = make_set(3, without=[1])
    batch, = batches(EvalLoader(dataset, make_cfg(canvases=((80, 90),), batch_size=3)))
    shapes = {name: (column.dtype.name, column.shape) for name, column in batch.items()}
    assert shapes == {
        "image": ("uint8", (3, 80, 90, 3)), "valid_size": ("float32", (3, 2)), "boxes": ("float32", (3, 8, 4)),
        "labels": ("int32", (3, 8)), "mask": ("bool", (3, 8)), "image_id": ("int64", (3,)),
        "original_size": ("int32", (3, 2)), "scale": ("float32", (3, 2)), "readable": ("bool", (3,))}
    assert (batch["image"][2, :60, :90] == (20, 100, 200)).all() and (batch["image"][2, 60:] == 0).all()
    np.testing.assert_array_equal(batch["valid_size"], [[60, 90]] * 3)
    np.testing.assert_array_equal(batch["scale"], [[1.5, 1.5]] * 3)
    np.testing.assert_array_equal(batch["original_size"], [[40, 60]] * 3)
    np.testing.assert_array_equal(batch["image_id"], [100, 101, 102])
    np.testing.assert_array_equal(batch["boxes"][2], [[3, 3, 18, 33], *[[0] * 4] * 7])
    np.testing.assert_array_equal(batch["labels"], [[1, *[-1] * 7], [-1] * 8, [1, *[-1] * 7]])
    np.testing.assert_array_equal(batch["mask"], [[True, *[False] * 7], [False] * 8, [True, *[False] * 7]])
    assert batch["readable"].all()


@pytest.mark.parametrize(("counts", "length"), [([0, 0], 8), ([3, 8, 1], 8), ([9], 16), ([170, 5], 176)])
def test_box_lists_have_the_most_boxes_of_any_image_rounded_up(counts, length):
    assert padded_length([SimpleNamespace(boxes=np.zeros((count, 4))) for count in counts]) == length


@pytest.mark.parametrize("keep", [False, True])
def test_every_epoch_shows_its_permutation_cut_to_whole_batches(make_set, make_cfg, caplog, keep):
    with caplog.at_level(logging.INFO, "faster_rcnn"):
        loader = TrainLoader(make_set(8, without=[3]), make_cfg(epochs=3, keep_empty_images=keep))
    assert caplog.text.strip().endswith(
        "1 of 8 images have no box and are background" if keep else
        "1 of 8 images have no box and are left out of training (data.keep_empty_images=True keeps them as background)")
    ids = np.arange(100, 108) if keep else np.delete(np.arange(100, 108), 3)
    steps = loader.steps_per_epoch
    assert steps == len(ids) // 2
    found = joined(batches(loader))
    wanted = np.concatenate([ids[plain_order(epoch, len(ids))[:2 * steps]] for epoch in range(3)])
    np.testing.assert_array_equal(found["image_id"], wanted)
    np.testing.assert_array_equal(found["mask"].sum(1), wanted != 103)


@pytest.mark.parametrize(("num_workers", "max_rowsize"), [(1, None), (2, None), (2, 8)])
@pytest.mark.parametrize("canvases", [ONE, TWO])
def test_resumed_run_sees_the_same_batches(make_set, make_cfg, canvases, num_workers, max_rowsize):
    """With threads, and with worker processes. A run that is over has no batches."""
    dataset = make_set(7, upright=(1, 4))
    whole = batches(TrainLoader(dataset, make_cfg(item_transforms=AUGMENTED, canvases=canvases, epochs=3)))
    cfg = make_cfg(item_transforms=AUGMENTED, canvases=canvases, epochs=3, num_workers=num_workers, max_rowsize=max_rowsize)
    assert len(whole) == 3 * (3 if canvases == ONE else 4)
    for start in (0, 4, len(whole)):
        assert_same(batches(TrainLoader(dataset, cfg), start), whole[start:])


@pytest.mark.parametrize(("batch_size", "accumulate_steps", "size"), [(2, 1, 2), (4, 3, 1), (2, 3, 2)])
@pytest.mark.parametrize("canvases", [ONE, TWO])
def test_processes_and_micro_batches_share_the_rows_of_one_batch_in_their_order(make_set, make_cfg, canvases, batch_size,
                                                                                accumulate_steps, size):
    """A batch of 12 is three micro-batches of 4, or three of 2 on each of two processes, with the first process's rows first."""
    dataset, number = make_set(26, upright=range(0, 26, 5)), batch_size * accumulate_steps * size
    whole = batches(TrainLoader(dataset, make_cfg(item_transforms=AUGMENTED, canvases=canvases, batch_size=number)))
    cfg = make_cfg(item_transforms=AUGMENTED, canvases=canvases, batch_size=batch_size, accumulate_steps=accumulate_steps)
    loaders = [TrainLoader(dataset, cfg, rank=rank, size=size) for rank in range(size)]
    streams = [batches(loader) for loader in loaders]
    assert {loader.steps_per_epoch for loader in loaders} == {len(whole) // 2}
    assert_same([joined([batch for stream in streams for batch in stream[first:first + accumulate_steps]])
                 for first in range(0, len(streams[0]), accumulate_steps)], whole)
    assert_same(batches(loaders[-1], accumulate_steps), streams[-1][accumulate_steps:])


@pytest.mark.parametrize("keep", [False, True])
def test_data_that_cannot_train(make_set, make_cfg, keep):
    cfg = make_cfg(batch_size=1, accumulate_steps=3, keep_empty_images=keep)
    with pytest.raises(UserError, match="batch_size is 1, accumulate_steps is 3 and 2 processes train, but .* only 5 images"):
        TrainLoader(make_set(5), cfg, size=2)
    with pytest.raises(UserError, match="has a box"):
        TrainLoader(make_set(2, without=(0, 1)), cfg)


@pytest.mark.parametrize(("images", "canvases", "batch_size", "size"), [
    (5, ONE, 3, 1), (37, ONE, 2, 4), (37, ONE, 3, 3), (3, ONE, 2, 4), (11, TWO, 1, 1), (11, TWO, 5, 1), (11, TWO, 3, 2)])
def test_processes_evaluate_each_image_once_in_the_batches_of_one_process(make_set, make_cfg, images, canvases, batch_size, size):
    """The last batch of each canvas is filled up with its last record. Images without boxes count as well."""
    dataset = make_set(images, without=[0], upright=range(1, images, 3) if canvases == TWO else ())
    cfg, seen = make_cfg(canvases=canvases, batch_size=batch_size), []
    whole = batches(EvalLoader(dataset, cfg))
    for rank in range(size):
        loader = EvalLoader(dataset, cfg, rank, size)
        assert_same(batches(loader), whole[rank::size])
        assert loader.num_images == sum(loader.counts) and len(loader.counts) == len(loader)
        for batch, count in zip(whole[rank::size], loader.counts):
            ids = batch["image_id"]
            assert len(ids) == batch_size and (ids[count:] == ids[count - 1]).all()
            is_upright = canvases == TWO and (ids[0] - 100) % 3 == 1
            assert batch["image"].shape[1:3] == (UPRIGHT if is_upright else WIDE)
            seen += ids[:count].tolist()
    assert sorted(seen) == [100 + i for i in range(images)]


@pytest.mark.parametrize(("batch_size", "steps", "repeats"), [(1, 11, 0), (3, 3 + 2, 2 + 2), (5, 2 + 1, 3 + 1)])
def test_an_epoch_has_each_image_once_and_fills_the_last_batch_of_each_canvas(make_set, make_cfg, batch_size, steps, repeats):
    """Batches are sorted by the position of their first images in the epoch. Numbers 1, 4, 7 and 10 are upright."""
    loader = TrainLoader(make_set(11, upright=(1, 4, 7, 10)), make_cfg(canvases=TWO, batch_size=batch_size))
    assert loader.steps_per_epoch == steps
    found = list(loader.batches())
    for epoch in range(2):
        own = found[epoch * steps:(epoch + 1) * steps]
        order = (100 + plain_order(epoch, 11)).tolist()
        for batch in own:
            assert set((batch.image_id - 100) % 3 == 1) == {batch.canvas == UPRIGHT}
        firsts = [order.index(batch.image_id[0]) for batch in own]
        assert firsts == sorted(firsts)
        counts = Counter(np.concatenate([batch.image_id for batch in own]).tolist())
        assert set(counts) == set(order) and counts.total() == 11 + repeats
        # The first images of each canvas, in the epoch's order, occur twice.
        for is_upright in (True, False):
            same = [image_id for image_id in order if ((image_id - 100) % 3 == 1) == is_upright]
            extra = -len(same) % batch_size
            assert [counts[image_id] for image_id in same] == [2] * extra + [1] * (len(same) - extra)


def test_the_order_in_which_canvases_are_met(make_set, make_cfg):
    loader = TrainLoader(make_set(11, upright=(1, 4, 7, 10)), make_cfg(canvases=(SQUARE, *TWO), accumulate_steps=2))
    met = [batch.canvas for batch in loader.batches()]
    assert met[::2] == met[1::2]
    for start in range(len(met) + 1):
        assert loader.canvas_order(start)[:len(set(met[start:]))] == list(dict.fromkeys(met[start:]))
        assert set(loader.canvas_order(start)) == set(TWO)


def remove(dataset, *numbers):
    for number in numbers:
        os.remove(dataset.records[number].path)


@pytest.fixture
def damaged(make_set):
    """Six records, of which numbers 2 and 3 are missing and 5 is empty."""
    dataset = make_set(6)
    remove(dataset, 2, 3)
    open(dataset.records[5].path, "w").close()
    return dataset


@pytest.mark.parametrize("num_workers", [1, 2])
def test_training_replaces_an_unreadable_record_by_the_next_readable_one(damaged, make_cfg, caplog, num_workers):
    """Each file is logged once with its reason."""
    loader = TrainLoader(damaged, make_cfg(epochs=2, num_workers=num_workers))
    found = joined(batches(loader))
    meant = np.concatenate([plain_order(epoch, 6) for epoch in range(2)])
    replacement = np.array([0, 1, 4, 4, 4, 0])
    np.testing.assert_array_equal(found["image_id"], 100 + replacement[meant])
    np.testing.assert_array_equal(found["readable"], replacement[meant] == meant)
    reasons = {2: "cannot be opened (No such file or directory)", 3: "cannot be opened (No such file or directory)",
               5: "the file is empty"}
    assert loader.unreadable == {damaged.records[number].path: reason for number, reason in reasons.items()}
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{path} {reason}" for path, reason in sorted(loader.unreadable.items())]
    remove(damaged, 0, 1, 4)
    with pytest.raises(UserError, match="not one of the 6 training images can be read"):
        batches(TrainLoader(damaged, make_cfg(epochs=1, num_workers=num_workers)))


def test_an_unreadable_file_is_replaced_by_the_next_of_its_canvas_and_then_by_any(make_set, make_cfg):
    dataset, order = make_set(11, upright=(1, 4, 7, 10)), plain_order(0, 11).tolist()
    cfg = make_cfg(canvases=TWO, batch_size=1, epochs=1)
    remove(dataset, 4)  # an upright image: number 7 replaces it
    ids = [int(batch.image_id[0]) for batch in TrainLoader(dataset, cfg).batches()]
    assert ids == [107 if index == 4 else 100 + index for index in order]
    remove(dataset, 1, 7, 10)
    following = {1: 102, 4: 105, 7: 108, 10: 100}
    found = list(TrainLoader(dataset, cfg).batches())
    assert [int(batch.image_id[0]) for batch in found] == [following.get(index, 100 + index) for index in order]
    assert {batch.canvas for batch in found if not batch.readable[0]} == {UPRIGHT}


@pytest.mark.parametrize(("height", "width", "valid_size", "scaling"), [
    (40, 60, (43, 64), {}), (31, 60, (33, 64), {}), (100, 200, (25, 50), {"shortest": 30, "longest": 50}),
    (65000, 65000, (64, 64), {}), (2**31 - 1, 1, (64, 1), {}), (1, 2**31 - 1, (1, 64), {})])
def test_evaluation_replaces_an_unreadable_image_by_a_black_one(make_set, make_cfg, height, width, valid_size, scaling):
    """The row has the size and the scaled boxes of the annotated image, and takes no memory of its annotated size."""
    dataset, cfg = make_set(2), make_cfg(batch_size=2)
    cfg.data.eval_transforms.item_transforms[0] = {"Resize": scaling}
    remove(dataset, 1)
    dataset.records[1] = dataset.records[1]._replace(height=height, width=width, boxes=np.float32([[0, 0, width, height]]))
    tracemalloc.start()
    batch, = batches(EvalLoader(dataset, cfg))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert batch["readable"].tolist() == [True, False] and batch["image"][0].any() and not batch["image"][1].any()
    np.testing.assert_array_equal(batch["valid_size"][1], valid_size)
    np.testing.assert_array_equal(batch["original_size"][1], (height, width))
    np.testing.assert_allclose(batch["scale"][1], (valid_size[0] / height, valid_size[1] / width), rtol=1e-6)
    np.testing.assert_allclose(batch["boxes"][1, 0], (0, 0, *valid_size[::-1]), rtol=1e-6)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_in_a_worker_reaches_the_consumer_as_it_is(make_set, make_cfg, monkeypatch, num_workers):
    def fail(*_):
        raise ZeroDivisionError("a defect in a worker")

    monkeypatch.setattr(loader_module, "read_image", fail)
    with pytest.raises(ZeroDivisionError, match="^a defect in a worker$"):
        batches(TrainLoader(make_set(6), make_cfg(num_workers=num_workers)))


def test_threads_end_when_the_consumer_stops_early(make_set, make_cfg, monkeypatch):
    reading = []
    read_image = loader_module.read_image
    monkeypatch.setattr(loader_module, "read_image", lambda *words: reading.append(threading.get_ident()) or read_image(*words))
    stream = TrainLoader(make_set(6), make_cfg(epochs=1000, num_workers=2)).batches()
    next(stream)
    stream.close()
    deadline = time.monotonic() + 60
    while any(thread.ident in reading for thread in threading.enumerate() if thread is not threading.main_thread()):
        assert time.monotonic() < deadline, "a thread still runs"
        time.sleep(0.01)
    assert 0 < len(reading) < 1000
