"""tools/yolo_to_coco.py: boxes, polygons, ids, classes and images against worked examples and a data set converted to YOLO's
format and back, and what it refuses."""
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.dataset.annotations import load_coco
from src.dataset.image import read_image
from src.dataset.shapes import ensure_shapes
from tests.helpers.fuzz_profile import fuzz
from tests.helpers.paths import ROOT
from tools import yolo_to_coco

NAMES = "cat,dog,ape"


@pytest.fixture
def folder(tmp_path):
    """A folder with `images` and `labels` in it, both empty."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    return tmp_path


def add(folder, name, text=None, size=(64, 48)):
    """Write the image images/<name> of `size` (width, height), and its label file unless `text` is None."""
    image, label = folder / "images" / name, (folder / "labels" / name).with_suffix(".txt")
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(image)
    if text is not None:
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_bytes(text.encode())


@pytest.fixture
def convert(folder, run_tool):
    """A function that runs the tool on the folder with further flags, and returns what it wrote and its standard output."""
    def run(*flags, images="images", names=NAMES):
        words = ["--images", folder / images, "--names", names, "--output", folder / "out.json", *flags]
        status, out, err = run_tool(yolo_to_coco, *words)
        assert (status, err) == (0, "")
        return json.loads((folder / "out.json").read_text()), out
    return run


@pytest.fixture
def refused(folder, run_tool):
    """A function that runs the tool on the folder with further flags, and returns the sentence that it is refused with."""
    def run(*flags, names=NAMES):
        words = ["--images", folder / "images", "--names", names, "--output", folder / "out.json", *flags]
        status, _, err = run_tool(yolo_to_coco, *words)
        assert status == 1 and err.startswith("error: ") and err.endswith("\n") and len(err.splitlines()) == 1
        assert not list(folder.glob("*out*"))
        return err[len("error: "):-1]
    return run


def test_a_worked_example(folder, convert):
    """By hand, in an image of 200 x 100 pixels: the middle (0.5, 0.4) is (100, 40), the size (0.25, 0.5) is 50 x 50."""
    add(folder, "b.jpg", "1 0.5 0.4 0.25 0.5\r\n\r\n0\t0.05 0.9 0.1 0.2 \n", (200, 100))
    add(folder, "sub/a.png", "2 0.1 0.1 0.4 0.1 0.1 0.6\n", (200, 100))  # a right-angled triangle of 60 x 50 pixels
    add(folder, "c.jpg", "")
    add(folder, "d.JPG")
    coco, out = convert()
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "ape"}]
    assert coco["images"] == [
        {"id": 1, "file_name": "b.jpg", "width": 200, "height": 100}, {"id": 2, "file_name": "c.jpg", "width": 64, "height": 48},
        {"id": 3, "file_name": "d.JPG", "width": 64, "height": 48},
        {"id": 4, "file_name": "sub/a.png", "width": 200, "height": 100}]
    first, second, third = coco["annotations"]
    for entry, bbox, area in ((first, [75, 15, 50, 50], 2500), (second, [0, 80, 20, 20], 400), (third, [20, 10, 60, 50], 1500)):
        assert entry.pop("bbox") == pytest.approx(bbox, abs=1e-9) and entry.pop("area") == pytest.approx(area)
    assert third.pop("segmentation") == [pytest.approx([20, 10, 80, 10, 20, 60])]
    assert (first, second) == tuple({"id": number, "image_id": 1, "category_id": label, "iscrowd": 0, "segmentation": []}
                                    for number, label in ((1, 2), (2, 1)))
    assert third == {"id": 3, "image_id": 4, "category_id": 3, "iscrowd": 0}
    assert "2 images have no boxes: 1 have an empty label file, 1 have none\n" in out
    assert "4 images, 3 boxes, 1 of them around polygons, 3 classes: cat, dog, ape\n" in out
    assert "clipped" not in out and len(load_coco(str(folder / "out.json"), str(folder / "images")).records) == 4


def test_the_area_of_a_polygon_is_positive_in_either_direction(folder, convert):
    add(folder, "a.jpg", "0 0.1 0.1 0.4 0.1 0.1 0.6\n0 0.1 0.6 0.4 0.1 0.1 0.1\n", (200, 100))
    assert [entry["area"] for entry in convert()[0]["annotations"]] == pytest.approx([1500, 1500])


def to_yolo(coco, folder):
    """Write a parsed COCO file as YOLO's label files with six decimals, as most programs do."""
    number_of = {entry["id"]: number for number, entry in enumerate(coco["categories"])}
    for image in coco["images"]:
        width, height = image["width"], image["height"]
        lines = []
        for entry in coco["annotations"]:
            if entry["image_id"] == image["id"]:
                x, y, w, h = entry["bbox"]
                lines.append(f"{number_of[entry['category_id']]} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} "
                             f"{w / width:.6f} {h / height:.6f}\n")
        (folder / image["file_name"]).with_suffix(".txt").write_text("".join(lines))


def test_drawn_shapes_there_and_back(folder, convert, tmp_path):
    ensure_shapes(str(tmp_path / "shapes"), 8, 1, 96, 160, 0)
    annotations, images = tmp_path / "shapes/annotations/instances_train2017.json", tmp_path / "shapes/train2017"
    before = json.loads(annotations.read_text())
    to_yolo(before, folder / "labels")
    names = ",".join(entry["name"] for entry in before["categories"])
    after, _ = convert("--images", images, "--labels", folder / "labels", names=names)
    one, other = (load_coco(str(path), str(images)) for path in (annotations, folder / "out.json"))
    assert one.names == other.names and len(after["annotations"]) == len(before["annotations"]) > 8
    for record, twin in zip(one.records, other.records):
        assert (record.path, record.height, record.width) == (twin.path, twin.height, twin.width)
        assert record.labels.tolist() == twin.labels.tolist()
        np.testing.assert_allclose(record.boxes, twin.boxes, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(64, 48), (60, 60)])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_boxes_lie_on_their_objects_whatever_the_orientation(folder, convert, size, orientation, ending):
    """A white field near a corner of the upright image, as Ultralytics' reader OpenCV shows it, is white in the box as the loader
    reads it."""
    path = folder / "images" / f"a.{ending}"
    exif = Image.Exif()
    exif[274] = orientation
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[5:15, 8:28] = 255
    Image.fromarray(pixels).save(path, exif=exif, quality=100, subsampling=0, lossless=True)
    upright = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_BGR)
    left, top, w, h = cv2.boundingRect((upright[..., 0] > 128).astype(np.uint8))
    height, width = upright.shape[:2]
    label = f"0 {(left + w / 2) / width} {(top + h / 2) / height} {w / width} {h / height}\n"
    (folder / "labels" / "a.txt").write_text(label)
    convert()
    [record] = load_coco(str(folder / "out.json"), str(folder / "images")).records
    read = read_image(record.path, (record.height, record.width))
    x1, y1, x2, y2 = record.boxes[0].round().astype(int)
    assert (read[y1:y2, x1:x2] > 128).all() and (x2 - x1) * (y2 - y1) == (read[..., 0] > 128).sum() == 200


def test_a_photograph_on_its_side_is_turned_and_others_are_not(folder, convert):
    """A telephone's photograph, orientation 6, is 48 pixels wide when it is upright; 3, upside down, stays as it is stored."""
    for orientation in (6, 3):
        exif = Image.Exif()
        exif[274] = orientation
        Image.new("RGB", (64, 48)).save(folder / "images" / f"{orientation}.jpg", exif=exif)
        (folder / "labels" / f"{orientation}.txt").write_text("0 0.25 0.25 0.5 0.25\n")
    coco, _ = convert()
    assert [(image["width"], image["height"]) for image in coco["images"]] == [(64, 48), (48, 64)]
    assert [entry["bbox"] for entry in coco["annotations"]] == [[32, 30, 32, 12], [0, 8, 24, 16]]


def test_a_photograph_of_several_pictures_is_turned_as_well(folder, convert):
    """MPO, in which telephones store a second picture; its name ends in .jpg."""
    exif = Image.Exif()
    exif[274] = 6
    image = Image.new("RGB", (64, 48))
    image.save(folder / "images" / "a.jpg", "MPO", save_all=True, append_images=[image], exif=exif)
    (folder / "labels" / "a.txt").write_text("0 0.25 0.25 0.5 0.25\n")
    coco, _ = convert()
    assert Image.open(folder / "images" / "a.jpg").format == "MPO"
    assert [(image["width"], image["height"]) for image in coco["images"]] == [(48, 64)]


def test_hidden_files_are_no_data(folder, convert):
    """Such as macOS leaves beside each file that it copies, and thumbnails."""
    for name in ("a.jpg", "._a.jpg", ".thumbnails/a.jpg"):
        add(folder, name, "0 0.5 0.5 1 1\n")
    coco, out = convert()
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg"]
    assert "beside 0 other files" in out and "have no image" not in out


def test_two_images_of_one_name_without_a_label_file_are_two_without_boxes(folder, convert):
    add(folder, "a.jpg", "0 0.5 0.5 1 1\n")
    for name in ("b.jpg", "b.png"):
        add(folder, name)
    assert len(convert()[0]["images"]) == 3


def test_labels_are_where_ultralytics_finds_them(folder, convert, refused):
    """The last folder images of the path counts; Roboflow has one in each part of the data."""
    for path in ("images/train/images/a.jpg", "images/val/images/b.jpg"):
        (folder / path).parent.mkdir(parents=True)
        Image.new("RGB", (10, 10)).save(folder / path)
    (folder / "labels" / "train" / "images").mkdir(parents=True)
    (folder / "labels" / "train" / "images" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    first = f"{folder}/images/train/labels/a.txt"
    assert f"none of the 2 images in {folder}/images has a label file (the first would be {first}); give --labels" in refused()
    (folder / "images" / "val" / "labels").mkdir()
    (folder / "images" / "val" / "labels" / "b.txt").write_text("1 0.5 0.5 1 1\n")
    assert [(entry["image_id"], entry["category_id"]) for entry in convert()[0]["annotations"]] == [(2, 2)]
    coco, _ = convert("--labels", folder / "labels")
    assert [(entry["image_id"], entry["category_id"]) for entry in coco["annotations"]] == [(1, 1)]


def test_label_files_without_an_image_are_named(folder, convert):
    add(folder, "3.jpg", "0 0.5 0.5 1 1\n")
    for number in (0, 1, 2, 4, 5, 6):
        (folder / "labels" / f"{number}.txt").write_text("0 0.5 0.5 1 1\n")
    _, out = convert()
    names = ", ".join(f"{folder}/labels/{number}.txt" for number in (0, 1, 2, 4, 5))
    assert f"6 of 7 label files have no image in {folder}/images: {names}, ...\n" in out


def test_labelimg_s_list_of_classes_is_no_label_file(folder, convert):
    """Unless an image has its name."""
    add(folder, "a.jpg", "0 0.5 0.5 1 1\n")
    (folder / "labels" / "classes.txt").write_text("cat\ndog\n")
    _, out = convert(names=str(folder / "labels" / "classes.txt"))
    assert "no image" not in out
    (folder / "labels" / "a.txt").rename(folder / "labels" / "b.txt")
    add(folder, "classes.jpg", "1 0.5 0.5 1 1\n")
    coco, out = convert()
    assert [entry["image_id"] for entry in coco["annotations"]] == [2] and "1 of 2 label files have no image" in out


@pytest.mark.parametrize(("name", "text"), [
    ("data.yaml", "path: x\nnames: [cat, dog]\nnc: 2\n"), ("data.yml", "names:\n  1: dog\n  0: cat\n"),
    ("names.txt", "\ufeffcat\r\ndog \r\n\r\n"), ("obj.names", "cat\ndog"), ("cat, dog", None)])
def test_where_names_come_from(folder, convert, name, text):
    add(folder, "a.jpg", "1 0.5 0.5 1 1\n")
    if text is not None:
        (folder / name).write_text(text)
    coco, _ = convert(names=str(folder / name) if text else name)
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert coco["annotations"][0]["category_id"] == 2


def test_names_that_are_numbers(folder, convert):
    add(folder, "a.jpg", "1 0.5 0.5 1 1\n")
    (folder / "digits.yaml").write_text("names: [0, 1]")
    assert [entry["name"] for entry in convert(names=str(folder / "digits.yaml"))[0]["categories"]] == ["0", "1"]


@pytest.mark.parametrize("line", ["./images/train/b.jpg", "/content/data/images/train/b.jpg", "train/b.jpg", "b.jpg",
                                  "C:\\data\\images\\train\\b.jpg", "\ufeffb.jpg\r\n\r"])
def test_a_split_is_a_list_of_paths_or_names(folder, convert, line):
    for name in ("a.jpg", "train/b.jpg", "train/a.jpg", "val/c.jpg"):
        add(folder, name, "0 0.5 0.5 1 1\n")
    (folder / "list.txt").write_text(f"{line}\na.jpg\na.jpg\n", newline="")
    coco, _ = convert("--split", folder / "list.txt")
    assert [(image["id"], image["file_name"]) for image in coco["images"]] == [(1, "a.jpg"), (2, "train/b.jpg")]
    assert [entry["image_id"] for entry in coco["annotations"]] == [1, 2]


def test_what_reaches_out_by_rounding_is_clipped_and_counted(folder, convert):
    """The first by 0.0001 pixels (0.9 + 0.1000005 of 200), the second and the polygon by 0.6, the last by none."""
    lines = "0 0.9 0.5 0.200001 1", "0 0.5 0.5 1.006 0.5", "0 0 0 1.003 0 1 1", "1 0.5 0.5 1 1"
    add(folder, "a.jpg", "\n".join(lines), (200, 100))
    coco, out = convert()
    boxes = [159.9999, 0, 40.0001, 100], [0, 25, 200, 50], [0, 0, 200, 100], [0, 0, 200, 100]
    np.testing.assert_allclose([entry["bbox"] for entry in coco["annotations"]], boxes, rtol=0, atol=1e-9)
    assert "3 boxes and polygons that reached out of their images, by up to 0.6 pixels, were clipped\n" in out
    assert load_coco(str(folder / "out.json"), str(folder / "images")).drops["clipped"] == 0


def test_a_pixel_is_the_most_that_is_clipped(folder, convert, refused):
    """Right edges at 201 of 200 pixels, at 64.32 of 64, and at 65.017 of 64."""
    add(folder, "a.jpg", "0 0.505 0.5 1 1\n", (200, 100))
    add(folder, "b.jpg", "0 0.5 0.5 1 1\n")
    assert "by up to 1 pixels, were clipped" in convert()[1]
    (folder / "out.json").unlink()
    (folder / "labels" / "b.txt").write_text("0 0.505 0.5 1 1\n0 0.51589 0.5 1 1\n")
    assert refused().startswith(f"{folder}/labels/b.txt, line 2 reaches 1.017 pixels out of its image of 64 x 48 pixels")


@pytest.mark.parametrize(("line", "sentence"), [
    ("0 0.5 0.5 0.5", "has 4 numbers; a class and the 4 of a box, or x and y of at least 3 points, are needed."),
    ("0 0.5 0.5 0.5 0.5 0.9", "has 6 numbers"),
    ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 numbers"),
    ("0", "has 1 numbers"),
    ("cat 0.5 0.5 0.5 0.5", "has 'cat' where a number is needed."),
    ("0 0,5 0.5 0.5 0.5", "has '0,5' where a number is needed."),
    ("0 nan 0.5 0.5 0.5", "has 'nan' where a number is needed."),
    ("0 0.5 0.5 inf 0.5", "has 'inf' where a number is needed."),
    ("0 0.5 0.5 1e999 0.5", "has '1e999' where a number is needed."),
    ("0 1_0 0.5 0.5 0.5", "has '1_0' where a number is needed."),
    ("\u0660 0.5 0.5 0.5 0.5", "has '\u0660' where a number is needed."),
    ("0 0.5 0.5 \0 0.5", r"has '\x00' where a number is needed."),
    ("3 0.5 0.5 0.5 0.5", "has the class '3', but --names has 3, counted from 0: correct it, or add the name."),
    ("-1 0.5 0.5 0.5 0.5", "has the class '-1', but"),
    ("0.5 0.5 0.5 0.5 0.5", "has the class '0.5', but"),
    ("0 0.5 0.5 -0.1 0.5", "has the width -0.1 and the height 0.5: neither may be negative; correct it."),
    ("0 0.5 0.5 0.5 -1e-9", "has the width 0.5 and the height -1e-09: neither may be negative"),
    ("0 0.99 0.5 0.1 0.5", "reaches 2.56 pixels out of its image of 64 x 48 pixels; YOLO's numbers are fractions"),
    ("0 32 24 64 48", "reaches 4032 pixels out of its image"),
    ("0 0.5 0.5 1e308 1e308", "reaches inf pixels out of its image"),
    ("0 0.1 0.1 0.5 -0.1 0.3 0.3", "reaches 4.8 pixels out of its image"),
])
def test_bad_lines_are_refused_with_file_and_line(folder, refused, line, sentence):
    add(folder, "a.jpg", f"0 0.5 0.5 0.5 0.5\n\n{line}\n")
    said = refused()
    assert said.startswith(f"{folder}/labels/a.txt, line 3 {sentence}"), said


def test_label_files_that_cannot_be_read_are_refused(folder, refused):
    add(folder, "a.jpg")
    label = folder / "labels" / "a.txt"
    label.write_bytes(b"0 0.5 0.5 0.5 0.5\n\xff\xfe")
    assert refused() == f"{label} is no text in UTF-8 (invalid start byte at byte 18)."
    label.unlink()
    os.mkfifo(label)
    assert refused() == f"{label} is not a file that can be read; correct or remove it."
    label.unlink()
    label.symlink_to("gone")
    assert refused() == f"{label} is not a file that can be read; correct or remove it."
    label.unlink()
    with open(label, "wb") as file:
        file.truncate(2**26 + 1)
    assert refused() == f"{label} has more than the 67108864 bytes that are read."


@pytest.mark.parametrize(("name", "text", "sentence"), [
    ("data.yaml", "names: {0: cat, 2: dog}", "its names have the numbers [0, 2]; all from 0 to 1 are needed."),
    ("data.yaml", "names: {a: cat}", "its names have the numbers ['a']; all from 0 to 0 are needed."),
    ("data.yaml", "nc: 3", "has no names; it needs names: [cat, dog], or"),
    ("data.yaml", "names: []", "has no names"),
    ("data.yaml", "[cat]", "has no names"),
    ("data.yaml", "names: [yes, no]", "the name of class 0 is True; a text is needed, in YAML perhaps in quotes."),
    ("data.yaml", "names: [cat, [dog]]", "the name of class 1 is ['dog']; a text is needed"),
    ("data.yaml", "names: [cat", "invalid YAML"),
    ("data.yaml", f"names: [0x{'f' * 5000}]", "the name of class 0 is a number with too many digits to show; a text"),
    ("names.txt", "cat\n\ndog\n", "the name of class 1 is ''; a text is needed"),
    ("names.txt", "cat\ndog\ncat\n", "has the name 'cat' twice; each class needs its own."),
    ("names.txt", "c\x1bat\n", r"the name of class 0 is 'c\x1bat'"),
    ("names.txt", "", "the name of class 0 is ''"),
])
def test_bad_names_are_refused(folder, refused, name, text, sentence):
    add(folder, "a.jpg", "")
    (folder / name).write_text(text)
    said = refused(names=str(folder / name))
    assert said.startswith(f"{folder}/{name}") and sentence in said


def test_what_else_is_refused(folder, refused, monkeypatch):
    monkeypatch.chdir(folder)
    assert "images has no image, which would end in .jpg, " in refused()
    add(folder, "a.jpg", "")
    assert refused("--images", "gone") == "there is no folder 'gone'; give --images the folder with the images."
    assert refused("--labels", "gone") == "there is no folder 'gone'; give --labels the folder with the .txt files."
    assert "there is no file 'gone.yaml'; give --names" in refused(names="gone.yaml")
    assert "different names between commas are needed" in refused(names="cat,,dog")
    assert refused("--output", folder) == f"cannot write {folder}: it is a folder; give a file's path."
    (folder / "list.txt").write_text("train/b.jpg\n")
    assert refused("--split", "list.txt") == f"list.txt lists 'train/b.jpg', but {folder}/images has no such image."
    (folder / "list.txt").write_text("\n")
    assert refused("--split", "list.txt") == "the list list.txt is empty: it must name at least one image."
    for name in ("x/b.jpg", "y/b.jpg"):
        add(folder, name, "")
    (folder / "list.txt").write_text("b.jpg\n")
    said = refused("--split", "list.txt")
    assert said == f"list.txt lists 'b.jpg', which may be x/b.jpg or y/b.jpg in {folder}/images; add its folder."
    (folder / "images" / "x" / "link").symlink_to(folder / "images")
    assert "are one folder, because of a link; remove that." in refused()
    (folder / "images" / "x" / "link").unlink()
    add(folder, "a.png")
    assert f"a.jpg and a.png in {folder}/images would both have the boxes of {folder}/labels/a.txt" in refused()
    (folder / "images" / "a.png").unlink()
    (folder / "images" / "a.jpg").write_text("no image")
    assert f"{folder}/images/a.jpg cannot be read as an image" in refused()
    (folder / "images").rename(folder / "pictures")
    assert "pictures/a.jpg is in no folder called images, beside which" in refused("--images", "pictures")


def test_folders_and_names_that_cannot_be_used_are_refused(folder, refused, monkeypatch):
    add(folder, "sub/a.jpg", "")
    scan = os.scandir

    def locked(path):
        if os.path.basename(path) == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)
    with monkeypatch.context() as patch:  # file permissions would not stop a test that root runs
        patch.setattr(os, "scandir", locked)
        assert refused() == f"the folder {folder}/images/sub cannot be read (Permission denied)."
    add(folder, "b\nc.jpg", "")
    assert refused().startswith(rf"{folder}/images has a file 'b\nc.jpg', whose name has line ends")


def test_as_a_program_with_relative_folders(folder):
    """It says paths as they were given, and makes the folder of its file."""
    add(folder, "a.jpg", "0 0.5 0.5 1 1\n")
    (folder / "labels" / "b.txt").write_text("")
    words = ["--images", "images", "--names", "cat", "--output", "new/out.json"]
    program = str(ROOT / "tools" / "yolo_to_coco.py")
    done = subprocess.run([sys.executable, program, *words], cwd=folder, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "") and "new/out.json: 1 images, 1 boxes" in done.stdout
    assert "1 of 2 label files have no image in images: labels/b.txt\n" in done.stdout
    assert json.loads((folder / "new" / "out.json").read_text())["images"][0]["file_name"] == "a.jpg"


WORDS = st.one_of(st.sampled_from(["0", "1", "2", "3", "0.5", "0.25", "1", "0", "1e-7", "-0.1", "nan", "inf", "1e999", "\ufeff",
                                   "\0", "\u2028", "0x1", "1_0", "\u0663", ","]),
                  st.floats(0, 1).map(str), st.floats().map(str), st.text(max_size=3))
LINES = st.one_of(st.lists(WORDS, max_size=9).map(" ".join),
                  st.lists(st.floats(0, 1), min_size=4, max_size=10).map(lambda row: " ".join(map(str, (1, *row)))))


@fuzz(150)
@given(content=st.one_of(st.binary(max_size=60), st.lists(LINES, max_size=4).map(
    lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))))
def test_any_label_file_ends_in_boxes_inside_the_image_or_one_sentence(folder, run_tool, content):
    add(folder, "a.jpg", "")
    label, output = folder / "labels" / "a.txt", folder / "out.json"
    label.write_bytes(content)
    output.unlink(missing_ok=True)
    status, _, err = run_tool(yolo_to_coco, "--images", folder / "images", "--names", NAMES, "--output", output)
    if status == 0:
        dataset = load_coco(str(output), str(folder / "images"))
        assert err == "" and dataset.drops["negative"] == dataset.drops["non_finite"] == dataset.drops["clipped"] == 0
        lines = [line for line in label.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        assert len(dataset.coco_json["annotations"]) == len(lines)
    else:
        assert status == 1 and err.startswith(f"error: {label}") and len(err.splitlines()) == 1 and not output.exists()
