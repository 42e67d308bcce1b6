"""Several canvases: the choice of an image's canvas, and batches of one canvas each."""
import os
from collections import Counter

import cv2
import numpy as np
import pytest

from src.dataset.annotations import load_coco
from src.dataset.batching import one_canvas_batches
from src.dataset.loader import EvalLoader, TrainLoader
from src.dataset.resize import Scaling, choose_canvas, fitted_size

WIDE, UPRIGHT, SQUARE = (64, 96), (96, 64), (80, 80)
CANVASES = WIDE, UPRIGHT
FLIP = [{"RandomFlip": {"prob": 0.5}}]


@pytest.mark.parametrize(("size", "canvases", "number"), [
    ((480, 640), CANVASES, 0), ((640, 480), CANVASES, 1), ((500, 500), CANVASES, 0), ((500, 500), (*CANVASES, SQUARE), 2),
    ((640, 480), (SQUARE, UPRIGHT), 1), ((10, 1000), (UPRIGHT, WIDE), 1)])
def test_an_image_goes_to_the_canvas_on_which_it_becomes_largest(size, canvases, number):
    assert choose_canvas(size, canvases, Scaling()) == number


@pytest.mark.parametrize(("size", "canvas", "scaling", "fitted"), [
    ((300, 400), (800, 1344), Scaling(800, 1333), (800, 1066)),     # factor 8 / 3 for both sides
    ((300, 600), (800, 1344), Scaling(800, 1333), (666, 1333)),     # the limit of the longest side applies
    ((600, 300), (1344, 800), Scaling(800, 1333), (1333, 666)),
    ((300, 600), (800, 1344), Scaling(800), (672, 1344)),           # no longest side: the canvas is the limit
    ((300, 400), (768, 1280), Scaling(800, 1333), (768, 1024)),
    ((300, 400), (768, 1280), Scaling(100, 1333), (100, 133))])     # smaller than the canvas permits
def test_shortest_and_longest_side(size, canvas, scaling, fitted):
    assert fitted_size(size, canvas, scaling) == fitted


def test_canvases_that_the_rule_fills_alike_are_equal():
    """Both hold the image with shortest side 60, and the square canvas needs no downscaling."""
    assert choose_canvas((300, 300), CANVASES, Scaling(60, 80)) == 0
    assert choose_canvas((300, 300), (SQUARE, WIDE), Scaling(60, 80)) == 0
    assert choose_canvas((300, 400), (UPRIGHT, WIDE), Scaling(60, 80)) == 1


def test_batches_by_a_worked_example():
    def cut(order, size, fill):
        canvas_of = np.array([0, 1, 0, 1, 0, 1, 1])
        return [batch.tolist() for batch in one_canvas_batches(np.array(order), canvas_of, size, fill)]

    order = [4, 1, 3, 2, 5, 6, 0]  # canvases 0, 1, 1, 0, 1, 1, 0
    assert cut(order, 2, fill=False) == [[4, 2], [1, 3], [5, 6], [0]]
    assert cut(order, 2, fill=True) == [[4, 2], [1, 3], [5, 6], [0, 4]]
    assert cut([1, 0], 3, fill=True) == [[1, 1, 1], [0, 0, 0]]


@pytest.fixture
def mixed(write_coco):
    """11 images, of which numbers 1, 4, 7 and 10 are upright; (data set, image folder)."""
    images = [{"id": 100 + i, "file_name": f"{i}.png", "height": 60 if i % 3 == 1 else 40, "width": 40 if i % 3 == 1 else 60}
              for i in range(11)]
    annotations = [{"id": i, "image_id": 100 + i, "category_id": 5, "bbox": [i, 2, 10, 20]} for i in range(11)]
    path, folder = write_coco(images, annotations)
    return load_coco(path, folder), folder


def plain_order(epoch):
    """Return the order of 11 images in an epoch without repetition."""
    return np.random.default_rng([7, 2, epoch]).permutation(11)


def upright(image_id):
    return (np.asarray(image_id) - 100) % 3 == 1


@pytest.mark.parametrize(("batch_size", "steps", "repeats"), [(1, 11, 0), (2, 4 + 2, 1), (3, 3 + 2, 2 + 2), (5, 2 + 1, 3 + 1)])
def test_an_epoch_has_each_image_once_and_fills_the_last_batch_of_each_canvas(mixed, make_cfg, batch_size, steps, repeats):
    loader = TrainLoader(mixed[0], make_cfg(canvases=CANVASES, batch_size=batch_size, epochs=2))
    assert loader.steps_per_epoch == steps
    found = list(loader.batches())
    assert len(found) == 2 * steps
    for epoch in range(2):
        own = found[epoch * steps:(epoch + 1) * steps]
        for batch in own:
            assert batch.canvas == (UPRIGHT if upright(batch.image_id[0]) else WIDE)
            assert (upright(batch.image_id) == upright(batch.image_id[0])).all()
        rows = np.concatenate([batch.image_id for batch in own])
        counts = Counter(rows.tolist())
        assert set(counts) == {100 + i for i in range(11)} and len(rows) == 11 + repeats
        # The first images of each canvas, in the epoch's order, occur twice.
        order = 100 + plain_order(epoch)
        for is_upright in (True, False):
            same = order[upright(order) == is_upright].tolist()
            extra = -len(same) % batch_size
            assert [counts[image_id] for image_id in same] == [2] * extra + [1] * (len(same) - extra)


def test_batches_come_in_the_order_of_their_first_images_which_differs_between_epochs(mixed, make_cfg):
    loader = TrainLoader(mixed[0], make_cfg(canvases=CANVASES, epochs=6))
    shapes = [batch.canvas for batch in loader.batches()]
    epochs = [tuple(shapes[start:start + 6]) for start in range(0, 36, 6)]
    assert len(set(epochs)) > 1 and all(Counter(epoch) == {WIDE: 4, UPRIGHT: 2} for epoch in epochs)
    first = list(loader.batches())[:6]
    place = {image_id: number for number, image_id in enumerate((100 + plain_order(0)).tolist())}
    assert [place[batch.image_id[0]] for batch in first] == sorted(place[batch.image_id[0]] for batch in first)


def test_one_canvas_in_a_list_is_that_canvas(mixed, make_cfg):
    loader = TrainLoader(mixed[0], make_cfg(canvases=(WIDE,)))
    ids = np.concatenate([batch.image_id for batch in loader.batches()])
    np.testing.assert_array_equal(ids, 100 + np.concatenate([plain_order(epoch)[:10] for epoch in range(2)]))


@pytest.mark.parametrize(("num_workers", "max_rowsize"), [(2, None), (2, 8)])
def test_a_resumed_run_sees_the_same_batches(mixed, make_cfg, num_workers, max_rowsize):
    whole = list(TrainLoader(mixed[0], make_cfg(item_transforms=FLIP, canvases=CANVASES)).batches())
    loader = TrainLoader(mixed[0], make_cfg(item_transforms=FLIP, canvases=CANVASES, num_workers=num_workers,
                                            max_rowsize=max_rowsize))
    for start in (1, 6, 8):
        found = list(loader.batches(start))
        assert len(found) == len(whole) - start
        for batch, wanted in zip(found, whole[start:]):
            for column, wanted_column in zip(batch, wanted):
                np.testing.assert_array_equal(np.asarray(column), np.asarray(wanted_column))


def test_ranks_have_the_same_canvas_in_the_same_step_and_share_the_images(mixed, make_cfg):
    cfg = make_cfg(item_transforms=FLIP, canvases=CANVASES, batch_size=4)
    whole = list(TrainLoader(mixed[0], cfg).batches())
    ranks = [TrainLoader(mixed[0], make_cfg(item_transforms=FLIP, canvases=CANVASES), rank, 2) for rank in range(2)]
    for wanted, *parts in zip(whole, *(rank.batches() for rank in ranks)):
        assert parts[0].canvas == parts[1].canvas == wanted.canvas
        np.testing.assert_array_equal(np.concatenate([part.image.asnumpy() for part in parts]), wanted.image.asnumpy())
        np.testing.assert_array_equal(np.concatenate([part.boxes.asnumpy() for part in parts]), wanted.boxes.asnumpy())
    assert [len(rank) for rank in ranks] == [len(whole)] * 2


def test_the_micro_batches_of_a_step_have_one_canvas(mixed, make_cfg):
    """Micro-batches are rows of one larger batch, which is filled up first: 7 wide images fill two of 4, 4 upright ones one."""
    whole = list(TrainLoader(mixed[0], make_cfg(item_transforms=FLIP, canvases=CANVASES, batch_size=4)).batches())
    loader = TrainLoader(mixed[0], make_cfg(item_transforms=FLIP, canvases=CANVASES, batch_size=2, accumulate_steps=2))
    assert loader.steps_per_epoch == 3
    found = list(loader.batches())
    for wanted, *parts in zip(whole, found[::2], found[1::2]):
        assert parts[0].canvas == parts[1].canvas == wanted.canvas
        np.testing.assert_array_equal(np.concatenate([part.image.asnumpy() for part in parts]), wanted.image.asnumpy())
    met = [batch.canvas for batch in found]
    for start in range(0, len(met), 2):
        assert loader.canvas_order(start)[:len(set(met[start:]))] == list(dict.fromkeys(met[start:]))


@pytest.mark.parametrize(("batch_size", "size"), [(1, 1), (5, 1), (3, 2), (2, 4)])
def test_an_evaluation_counts_each_image_once(mixed, make_cfg, batch_size, size):
    seen = []
    for rank in range(size):
        loader = EvalLoader(mixed[0], make_cfg(canvases=CANVASES, batch_size=batch_size), rank, size)
        found = list(loader.batches())
        assert len(found) == len(loader.counts) == len(loader)
        for batch, count in zip(found, loader.counts):
            assert len(batch.image_id) == batch_size and batch.canvas == (UPRIGHT if upright(batch.image_id[0]) else WIDE)
            assert (batch.image_id[count:] == batch.image_id[count - 1]).all()
            seen += batch.image_id[:count].tolist()
    assert sorted(seen) == [100 + i for i in range(11)]


def test_boxes_follow_the_image_to_its_canvas(mixed, make_cfg):
    loader = EvalLoader(mixed[0], make_cfg(canvases=CANVASES, batch_size=1))
    for batch in loader.batches():
        index = int(batch.image_id[0]) - 100
        np.testing.assert_allclose(batch.scale, 1.6, rtol=1e-6)  # 96 / 60 and 64 / 40
        np.testing.assert_allclose(batch.boxes.asnumpy()[0, 0], 1.6 * np.array([index, 2, index + 10, 22]), rtol=1e-6)
        np.testing.assert_array_equal(batch.valid_size.asnumpy(), [batch.canvas])


def test_an_unreadable_file_gives_way_to_the_next_of_its_canvas_and_then_to_any(mixed, make_cfg):
    dataset, folder = mixed
    os.remove(os.path.join(folder, "4.png"))  # an upright image: number 7 replaces it
    loader = TrainLoader(dataset, make_cfg(canvases=CANVASES, batch_size=1, epochs=1))
    ids = [int(batch.image_id[0]) for batch in loader.batches()]
    assert ids == [107 if index == 4 else 100 + index for index in plain_order(0)]
    for number in (1, 7, 10):
        os.remove(os.path.join(folder, f"{number}.png"))
    following = {1: 102, 4: 105, 7: 108, 10: 100}
    batches = list(TrainLoader(dataset, make_cfg(canvases=CANVASES, batch_size=1, epochs=1)).batches())
    assert [int(batch.image_id[0]) for batch in batches] == [
        following.get(index, 100 + index) for index in plain_order(0).tolist()]
    assert {batch.canvas for batch in batches if not batch.readable[0]} == {UPRIGHT}


def test_the_order_in_which_canvases_are_met(mixed, make_cfg):
    loader = TrainLoader(mixed[0], make_cfg(canvases=(SQUARE, *CANVASES), batch_size=1))
    met = [batch.canvas for batch in loader.batches()]
    for start in range(len(met) + 1):
        assert loader.canvas_order(start)[:len(set(met[start:]))] == list(dict.fromkeys(met[start:]))
        assert set(loader.canvas_order(start)) == set(CANVASES)


@pytest.mark.parametrize(("scaling", "size"), [({}, (40, 80)), ({"shortest": 30, "longest": 50}, (25, 50))])
def test_the_list_of_transforms_sets_the_scaling(write_coco, make_cfg, scaling, size):
    """The scaling applies to readable images, and to black images that replace unreadable ones."""
    path, folder = write_coco([{"id": 1, "file_name": "a.png", "height": 100, "width": 200},
                               {"id": 2, "file_name": "b.png", "height": 100, "width": 200}],
                              [{"id": i, "image_id": i, "category_id": 5, "bbox": [0, 0, 100, 100]} for i in (1, 2)])
    os.remove(os.path.join(folder, "b.png"))
    cfg = make_cfg(canvases=((40, 80),))
    cfg.data.eval_transforms.item_transforms[0] = {"Resize": scaling}
    [batch] = EvalLoader(load_coco(path, folder), cfg).batches()
    np.testing.assert_array_equal(batch.valid_size.asnumpy(), [size, size])
    np.testing.assert_allclose(batch.boxes.asnumpy()[:, 0], [[0, 0, size[0], size[0]]] * 2)
    wanted = cv2.resize(np.full((100, 200, 3), (0, 100, 200), np.uint8), size[::-1])
    np.testing.assert_array_equal(batch.image.asnumpy()[0][:size[0], :size[1]], wanted)
