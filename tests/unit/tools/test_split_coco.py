"""tools/split_coco.py: every image and box is in one of the two files, the same one each time."""
import json

import pytest

from src.dataset.annotations import load_coco
from src.dataset.shapes import ensure_shapes
from tools import split_coco


@pytest.fixture
def divided(tmp_path, run_tool):
    """A function that divides ten drawn images with further flags; returns status, both files parsed and the error."""
    ensure_shapes(str(tmp_path / "shapes"), 10, 1, 64, 64, 0)
    source, folder = tmp_path / "shapes/annotations/instances_train2017.json", tmp_path / "shapes/train2017"

    def run(*flags, images=10, reverse=False):
        coco = json.loads(source.read_text())
        coco["images"] = coco["images"][:images][::-1 if reverse else 1]
        coco["annotations"] = [entry for entry in coco["annotations"] if entry["image_id"] in {i["id"] for i in coco["images"]}]
        (tmp_path / "all.json").write_text(json.dumps(coco))
        outputs = tmp_path / "train.json", tmp_path / "val.json"
        words = ["--annotations", tmp_path / "all.json", "--images", folder, "--train", outputs[0], "--val", outputs[1], *flags]
        status, _, err = run_tool(split_coco, *words)
        return status, coco, [load_coco(str(path), str(folder)) for path in outputs if path.exists()], err
    return run


def test_every_image_and_box_is_on_one_side(divided):
    status, coco, (train, val), err = divided()
    assert (status, err, len(val.records), len(train.records)) == (0, "", 2, 8)
    ids = {record.image_id for record in train.records}, {record.image_id for record in val.records}
    assert not ids[0] & ids[1] and ids[0] | ids[1] == {image["id"] for image in coco["images"]}
    assert train.names == val.names and train.category_ids == [entry["id"] for entry in coco["categories"]]
    for part, chosen in zip((train, val), ids):
        expected = [(e["image_id"], e["category_id"], e["bbox"]) for e in coco["annotations"] if e["image_id"] in chosen]
        assert [(e["image_id"], e["category_id"], e["bbox"]) for e in part.coco_json["annotations"]] == expected


def test_the_choice_depends_on_the_seed_alone(divided):
    chosen = [{record.image_id for record in divided("--seed", seed, reverse=reverse)[2][1].records}
              for seed, reverse in ((0, False), (0, True), (1, False), (2, False), (3, False))]
    assert chosen[0] == chosen[1] and any(other != chosen[0] for other in chosen[2:])


@pytest.mark.parametrize(("fraction", "images", "val"), [("0.01", 10, 1), ("0.99", 10, 9), ("0.5", 2, 1), ("0.3", 10, 3)])
def test_no_side_is_empty(divided, fraction, images, val):
    assert len(divided("--val_fraction", fraction, images=images)[2][1].records) == val


def test_the_folders_of_the_files_are_made(divided, tmp_path):
    outputs = tmp_path / "new" / "train" / "a.json", tmp_path / "new" / "val" / "a.json"
    status, _, _, err = divided("--train", outputs[0], "--val", outputs[1])
    assert (status, err) == (0, "")
    assert [len(json.loads(path.read_text())["images"]) for path in outputs] == [8, 2]


@pytest.mark.parametrize(("flags", "images", "sentence"), [
    (["--val_fraction", "1"], 10, "--val_fraction must be above 0 and below 1, not 1."),
    (["--val_fraction", "nan"], 10, "--val_fraction must be above 0 and below 1, not nan."),
    ([], 1, "all.json has one image only: it cannot be divided."),
    (["--val", "all.json/val.json"], 10, "cannot create the folder all.json (File exists); give all.json/val.json another path."),
    (["--train", "same.json", "--val", "./same.json"], 10, "--train and --val are both same.json; give two files."),
    (["--seed", "-1"], 10, "--seed must be at least 0, not -1."),
])
def test_what_is_refused(divided, flags, images, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, written, err = divided(*flags, images=images)
    assert (status, written) == (1, []) and err.startswith("error: ") and err.endswith(sentence + "\n") and err.count("\n") == 1
