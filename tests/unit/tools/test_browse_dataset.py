"""tools/browse_dataset.py: the sheet shows the images that training uses, mirrored in the same way."""
import json

import cv2
import numpy as np
import pytest

from src.dataset.shapes import ensure_shapes
from tests.helpers.paths import TINY_DETECTOR
from tools import browse_dataset

IMAGES, SEED, EPOCH, COUNT = 9, 7, 3, 5
TILE = 480


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Folder of a data set in which one box is empty."""
    folder = tmp_path_factory.mktemp("browse") / "shapes"
    ensure_shapes(str(folder), train_images=IMAGES, val_images=1, height=64, width=64, seed=0)
    path = folder / "annotations" / "instances_train2017.json"
    coco = json.loads(path.read_text())
    coco["annotations"].append({**coco["annotations"][0], "id": 1000, "bbox": [3, 3, 0, 5]})
    path.write_text(json.dumps(coco))
    return folder


def place_of(image, sheet):
    """Return the (left, top) at which the image matches the sheet best, and the difference there, from 0 to 1."""
    distance = cv2.matchTemplate(sheet, image, cv2.TM_SQDIFF_NORMED)
    return np.unravel_index(distance.argmin(), distance.shape)[::-1], distance.min()


def test_the_sheet_has_what_training_gets(shapes, tmp_path, run_tool):
    output = tmp_path / "new" / "sheet.png"
    status, said, errors = run_tool(
        browse_dataset, "--config", TINY_DETECTOR, "--count", COUNT, "--epoch", EPOCH, "--seed", SEED, "--output", output,
        "-o", f"data.dataset_dir={shapes}", "data.draw_shapes=null")
    assert status == 0, errors
    assert "1 empty boxes (dropped)" in said
    assert f"{COUNT} of {IMAGES} training images of epoch {EPOCH} with seed {SEED}: {output}" in said
    sheet = cv2.imread(str(output))
    # As in src/dataset/loader.py: the order depends on (seed, 2, epoch), and the mirroring of an image on
    # (seed, 3, epoch, its number, 0); epochs start at 0.
    wanted = np.random.default_rng([SEED, 2, EPOCH - 1]).permutation(IMAGES)[:COUNT]
    mirrored = [np.random.default_rng([SEED, 3, EPOCH - 1, number, 0]).random() < 0.5 for number in wanted]
    assert len(set(mirrored)) == 2
    places = []
    for number, flip in zip(wanted, mirrored):
        image = cv2.imread(str(shapes / "train2017" / f"{number + 1:06d}.jpg"))
        image = cv2.resize(image[:, ::-1] if flip else image, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
        place, distance = place_of(image, sheet)
        assert distance < 0.1 and distance < 0.7 * place_of(image[:, ::-1].copy(), sheet)[1]
        places.append(place)
    first = places[0]
    assert places == [(first[0] + column * (TILE + 10), first[1] if row == 0 else places[4][1])
                      for row, column in ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0))]
    assert places[4][1] > first[1] + TILE


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--count", "0"], "--count must be from 1 to 200 and --epoch at least 1, not 0 and 1."),
    (["--output", "a.gif"], "--output is 'a.gif'; its name must end in .jpg or .png."),
])
def test_what_browsing_refuses(flags, sentence, run_tool):
    assert run_tool(browse_dataset, *flags) == (1, "", f"error: {sentence}\n")
