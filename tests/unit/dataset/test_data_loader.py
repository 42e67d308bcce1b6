"""src/dataset/loader.py: the order of images, independent of the workers, and the handling of unreadable images."""
import json
import logging
import os
import threading
import time
import tracemalloc

import numpy as np
import pytest

from src.dataset import loader as loader_module
from src.dataset.annotations import load_coco
from src.dataset.batching import epoch_order
from src.dataset.loader import Batch, EvalLoader, TrainLoader
from src.errors import UserError

AUGMENTED = ({"RandomFlip": {"prob": 0.5}}, {"RandomHSV": {"hgain": 0.2, "sgain": 0.5, "vgain": 0.5}},
             {"RandomVerticalFlip": {"prob": 0.5}}, {"RandomRotate90": {"prob": 0.5}},
             {"RandomCrop": {"prob": 0.5, "min_scale": 0.5, "min_area": 0.5}},
             {"PhotometricDistortion": {"brightness": 32, "contrast": 0.5, "saturation": 0.5, "hue": 18}},
             {"Albumentations": {"transforms": [{"CLAHE": {"p": 0.5}}, {"RandomRotate90": {}}, {"GaussNoise": {}}]}})


def batches(loader, *start):
    return [arrays(batch) for batch in loader.batches(*start)]


def arrays(batch):
    return {name: np.array(column) for name, column in batch._asdict().items()}


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        for name in Batch._fields:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def plain_order(seed, epoch, count):
    """Return the order of an epoch without repetition, as in earlier versions, so that their runs resume with the same images."""
    return np.random.default_rng([seed, 2, epoch]).permutation(count)


def test_order_is_a_permutation_of_its_own_for_each_seed_and_epoch():
    orders = [epoch_order(seed, epoch, np.ones(100), np.zeros(100)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert all(sorted(one) == list(range(100)) for one in orders)
    assert len({tuple(one) for one in orders}) == 6
    np.testing.assert_array_equal(plain_order(1, 2, 100), orders[5])


def test_columns_of_a_batch(write_images, make_cfg):
    loader = EvalLoader(load_coco(*write_images(3, without=[1])), make_cfg(canvases=((80, 90),), batch_size=3))
    batch, = batches(loader)
    shapes = {name: (column.dtype.name, column.shape) for name, column in batch.items()}
    assert shapes == {
        "image": ("uint8", (3, 80, 90, 3)), "valid_size": ("float32", (3, 2)), "boxes": ("float32", (3, 4, 4)),
        "labels": ("int32", (3, 4)), "mask": ("bool", (3, 4)), "image_id": ("int64", (3,)),
        "original_size": ("int32", (3, 2)), "scale": ("float32", (3, 2)), "readable": ("bool", (3,))}
    assert (batch["image"][2, :60, :90] == (20, 100, 200)).all() and (batch["image"][2, 60:] == 0).all()
    np.testing.assert_array_equal(batch["valid_size"], [[60, 90]] * 3)
    np.testing.assert_array_equal(batch["scale"], [[1.5, 1.5]] * 3)
    np.testing.assert_array_equal(batch["original_size"], [[40, 60]] * 3)
    np.testing.assert_array_equal(batch["image_id"], [100, 101, 102])
    np.testing.assert_array_equal(batch["boxes"][2], [[3, 3, 18, 33], [0] * 4, [0] * 4, [0] * 4])
    np.testing.assert_array_equal(batch["labels"], [[1, -1, -1, -1], [-1] * 4, [1, -1, -1, -1]])
    np.testing.assert_array_equal(batch["mask"], [[True, False, False, False], [False] * 4, [True] + [False] * 3])
    assert batch["readable"].all()


def test_every_epoch_shows_its_permutation_cut_to_whole_batches(write_images, make_cfg):
    loader = TrainLoader(load_coco(*write_images(8, without=[3])), make_cfg(epochs=3))
    assert loader.steps_per_epoch == 3 and [r.image_id for r in loader.records][3] == 104
    ids = np.array([record.image_id for record in loader.records])
    found = np.concatenate([batch["image_id"] for batch in batches(loader)]).reshape(3, 6)
    for epoch in range(3):
        np.testing.assert_array_equal(found[epoch], ids[plain_order(7, epoch, 7)[:6]])


@pytest.mark.parametrize(("num_workers", "max_rowsize"), [(1, None), (2, None), (1, 8), (2, 8)])
def test_resumed_run_sees_the_same_batches(write_images, make_cfg, num_workers, max_rowsize):
    """With threads, and with worker processes."""
    dataset = load_coco(*write_images(7))
    whole = batches(TrainLoader(dataset, make_cfg(item_transforms=AUGMENTED, epochs=3)))
    cfg = make_cfg(item_transforms=AUGMENTED, epochs=3, num_workers=num_workers, max_rowsize=max_rowsize)
    assert len(whole) == 9
    for start in (0, 4):
        assert_same(batches(TrainLoader(dataset, cfg), start), whole[start:])


def test_a_run_that_is_over_has_no_batches(write_images, make_cfg):
    assert batches(TrainLoader(load_coco(*write_images(4)), make_cfg()), 4) == []


def test_augmentation_differs_between_epochs_and_seeds(write_images, make_cfg):
    dataset = load_coco(*write_images(4))
    runs = [batches(TrainLoader(dataset, make_cfg(item_transforms=AUGMENTED, seed=seed, batch_size=4, epochs=2)))
            for seed in (1, 2)]
    pixels = []
    for batch in (batch for run in runs for batch in run):
        pixels.append(tuple(batch["image"][np.argsort(batch["image_id"]), 0, 0].ravel()))
    assert len(set(pixels)) == 4


def test_batches_stay_valid_after_the_loader_has_moved_on(write_images, make_cfg):
    loader = TrainLoader(load_coco(*write_images(6)), make_cfg(num_workers=2))
    kept = list(loader.batches())
    assert_same([arrays(batch) for batch in kept], batches(loader))


def test_evaluation_fills_up_the_last_batch_with_the_last_record(write_images, make_cfg):
    loader = EvalLoader(load_coco(*write_images(5, without=[0])), make_cfg(batch_size=3))
    assert loader.num_images == 5
    found = batches(loader)
    np.testing.assert_array_equal([batch["image_id"] for batch in found], [[100, 101, 102], [103, 104, 104]])
    assert_same(batches(loader), found)


def test_padding_grows_to_what_the_data_needs(write_coco, make_cfg, caplog):
    image = {"id": 1, "file_name": "a.png", "height": 40, "width": 60}
    boxes = [{"image_id": 1, "category_id": 2, "bbox": [i, i, 5, 5]} for i in range(7)]
    dataset = load_coco(*write_coco([image], boxes))
    with caplog.at_level(logging.INFO, "faster_rcnn"):
        loader = TrainLoader(dataset, make_cfg(batch_size=1))
    assert [r.getMessage() for r in caplog.records if "padding" in r.getMessage()] == [
        "LabelsPadding.padding_size grows from 4 to 7, the most boxes that an image has"]
    batch = batches(loader)[0]
    assert batch["boxes"].shape == (1, 7, 4) and batch["mask"].all()


def test_batch_larger_than_the_data_set(write_images, make_cfg):
    with pytest.raises(UserError, match="batch_size is 5, but .* only 4 images"):
        TrainLoader(load_coco(*write_images(4)), make_cfg(batch_size=5))


def test_micro_batches_larger_than_the_data_set(write_images, make_cfg):
    sentence = (r"batch_size is 1 and accumulate_steps is 3 for each of 2 processes, but .* only 5 images to train on: choose a "
                r"smaller batch_size or accumulate_steps\.$")
    with pytest.raises(UserError, match=sentence):
        TrainLoader(load_coco(*write_images(5)), make_cfg(batch_size=1, accumulate_steps=3), size=2)


def test_processes_share_each_training_batch(write_images, make_cfg):
    """In each step, two processes with batch size 2 see the rows of one process with batch size 4."""
    dataset = load_coco(*write_images(13))
    whole = batches(TrainLoader(dataset, make_cfg(item_transforms=AUGMENTED, batch_size=4, epochs=2)))
    cfg = make_cfg(item_transforms=AUGMENTED, batch_size=2, epochs=2)
    parts = [batches(TrainLoader(dataset, cfg, rank=rank, size=2)) for rank in (0, 1)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 6
    joined = [{name: np.concatenate([first[name], second[name]]) for name in first} for first, second in zip(*parts)]
    assert_same(joined, whole)


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_are_the_rows_of_one_batch_in_their_order(write_images, make_cfg, size):
    """A batch of 12 is three micro-batches of 4, or three of 2 on each of two processes, with the first process's rows first."""
    dataset = load_coco(*write_images(26))
    whole = batches(TrainLoader(dataset, make_cfg(item_transforms=AUGMENTED, batch_size=12, epochs=2)))
    cfg = make_cfg(item_transforms=AUGMENTED, batch_size=4 // size, accumulate_steps=3, epochs=2)
    loaders = [TrainLoader(dataset, cfg, rank=rank, size=size) for rank in range(size)]
    assert {loader.steps_per_epoch for loader in loaders} == {2} and len(whole) == 4
    streams = [batches(loader) for loader in loaders]
    assert {len(stream) for stream in streams} == {4 * 3}
    joined = []
    for step in range(4):
        rows = [batch for stream in streams for batch in stream[3 * step:3 * step + 3]]
        joined.append({name: np.concatenate([batch[name] for batch in rows]) for name in Batch._fields})
    assert_same(joined, whole)
    # Resume after the third step.
    assert_same(batches(loaders[-1], 9), streams[-1][9:])


@pytest.mark.parametrize(("images", "batch_size", "size"), [(37, 2, 1), (37, 2, 4), (37, 3, 3), (4, 2, 2), (3, 2, 4)])
def test_processes_evaluate_each_image_once(write_images, make_cfg, images, batch_size, size):
    dataset = load_coco(*write_images(images))
    cfg, seen = make_cfg(batch_size=batch_size), []
    for rank in range(size):
        loader = EvalLoader(dataset, cfg, rank, size)
        rows = np.concatenate([[], *(batch["image_id"] for batch in batches(loader))])
        assert len(rows) % batch_size == 0
        seen += rows[:loader.num_images].tolist()
        # With one process, whole batches are compared: an image keeps its neighbours.
        assert ((rows[::batch_size] - 100) % batch_size == 0).all()
    assert sorted(seen) == [100 + i for i in range(images)]


@pytest.fixture
def damaged(write_images):
    """Six records, of which numbers 2 and 3 are missing and 5 is empty; returns (data set, image folder)."""
    path, folder = write_images(6)
    dataset = load_coco(path, folder)
    os.remove(os.path.join(folder, "2.png"))
    os.remove(os.path.join(folder, "3.png"))
    open(os.path.join(folder, "5.png"), "w").close()
    return dataset, folder


@pytest.mark.parametrize("num_workers", [1, 2])
def test_training_puts_the_next_readable_record_in_the_place_of_an_unreadable_one(damaged, make_cfg, num_workers):
    cfg = make_cfg(epochs=2, num_workers=num_workers)
    found = batches(TrainLoader(damaged[0], cfg))
    meant = np.concatenate([plain_order(7, epoch, 6) for epoch in range(2)])
    replacement = np.array([0, 1, 4, 4, 4, 0])
    np.testing.assert_array_equal(np.concatenate([b["image_id"] for b in found]), 100 + replacement[meant])
    np.testing.assert_array_equal(np.concatenate([b["readable"] for b in found]), replacement[meant] == meant)


def test_evaluation_puts_a_black_image_in_the_place_of_an_unreadable_one(damaged, make_cfg):
    found = batches(EvalLoader(damaged[0], make_cfg(batch_size=3)))
    np.testing.assert_array_equal([b["readable"] for b in found], [[True, True, False], [False, True, False]])
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
    _, row = batches(EvalLoader(load_coco(path, folder), make_cfg(batch_size=1)))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert not row["readable"].any() and not row["image"].any()
    np.testing.assert_array_equal(row["valid_size"], [valid_size])
    np.testing.assert_array_equal(row["original_size"], [(height, width)])
    np.testing.assert_allclose(row["scale"], [(valid_size[0] / height, valid_size[1] / width)], rtol=1e-6)
    np.testing.assert_allclose(row["boxes"][0, 0], (0, 0, *valid_size[::-1]), rtol=1e-6)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_not_one_readable_image_is_an_error(damaged, make_cfg, num_workers):
    dataset, folder = damaged
    for name in ("0.png", "1.png", "4.png"):
        os.remove(os.path.join(folder, name))
    with pytest.raises(UserError, match="not one of the 6 training images can be read"):
        batches(TrainLoader(dataset, make_cfg(epochs=1, num_workers=num_workers)))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_unreadable_files_are_named_once_with_their_reason(damaged, make_cfg, caplog, num_workers):
    dataset, folder = damaged
    loader = TrainLoader(dataset, make_cfg(epochs=4, num_workers=num_workers))
    batches(loader)
    expected = {os.path.join(folder, "2.png"): "cannot be opened (No such file or directory)",
                os.path.join(folder, "3.png"): "cannot be opened (No such file or directory)",
                os.path.join(folder, "5.png"): "the file is empty"}
    assert loader.unreadable == expected
    assert sorted(record.getMessage() for record in caplog.records) == [f"{path} {reason}" for path, reason in expected.items()]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_a_worker_fails_with_reaches_the_consumer_as_it_is(write_images, make_cfg, monkeypatch, num_workers):
    def fail(*_):
        raise ZeroDivisionError("a defect in a worker")

    monkeypatch.setattr(loader_module, "read_image", fail)
    with pytest.raises(ZeroDivisionError, match="^a defect in a worker$"):
        batches(TrainLoader(load_coco(*write_images(6)), make_cfg(num_workers=num_workers)))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_threads_end_when_the_consumer_stops_early(write_images, make_cfg, monkeypatch, num_workers):
    reading = []
    read_image = loader_module.read_image
    monkeypatch.setattr(loader_module, "read_image", lambda *words: reading.append(threading.get_ident()) or read_image(*words))
    stream = TrainLoader(load_coco(*write_images(6)), make_cfg(epochs=1000, num_workers=num_workers)).batches()
    next(stream)
    stream.close()
    deadline = time.monotonic() + 60
    while any(thread.ident in reading for thread in threading.enumerate() if thread is not threading.main_thread()):
        assert time.monotonic() < deadline, "a thread still runs"
        time.sleep(0.01)
    assert 0 < len(reading) < 1000
