"""tools/voc_to_coco.py: boxes, ids, classes and images against worked examples and data sets converted to VOC's format and back,
and what it refuses."""
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.dataset.annotations import load_coco
from src.dataset.shapes import ensure_shapes
from tests.helpers.paths import ROOT
from tests.helpers.voc_files import voc_xml
from tools import voc_to_coco

# As VOC2007 has them: difficult and truncated objects, parts with boxes of their own, elements in another order.
HAND_WRITTEN = """<?xml version="1.0" encoding="UTF-8"?>
<annotation verified="yes">
  <folder>VOC2007</folder>
  <filename>000001.jpg</filename>
  <source><database>The VOC2007 Database</database></source>
  <size><width>353</width><height>500</height><depth>3</depth></size>
  <segmented>0</segmented>
  <object>
    <name>person</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
    <part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>11</xmax><ymax>11</ymax></bndbox></part>
    <bndbox><ymax>500</ymax><xmax>353</xmax><ymin>1</ymin><xmin>1</xmin></bndbox>
  </object>
  <object>
    <name>
 dining table </name><difficult>1</difficult>
    <bndbox><xmin>48.5</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox>
  </object>
</annotation>
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with `xml` and `jpg` in it, both empty."""
    (tmp_path / "xml").mkdir()
    (tmp_path / "jpg").mkdir()
    return tmp_path


@pytest.fixture
def convert(folder, run_tool):
    """A function that runs the tool on the folder with further flags, and returns what it wrote and its standard output."""
    def run(*flags, images=True):
        words = ["--annotations", folder / "xml", "--output", folder / "out.json", *flags]
        status, out, err = run_tool(voc_to_coco, *words, *["--images", folder / "jpg"] * images)
        assert (status, err) == (0, "")
        return json.loads((folder / "out.json").read_text()), out
    return run


@pytest.fixture
def refused(folder, run_tool):
    """A function that runs the tool on the folder with further flags, and returns the sentence that it is refused with."""
    def run(*flags):
        words = ["--annotations", folder / "xml", "--output", folder / "out.json", *flags]
        status, out, err = run_tool(voc_to_coco, *words)
        assert status == 1 and err.startswith("error: ") and err.endswith("\n") and len(err.splitlines()) == 1
        assert out == "" and not list(folder.glob("*out*"))
        return err[len("error: "):-1]
    return run


def write_image(path, width=64, height=48, orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)


def test_a_worked_example(folder, convert):
    (folder / "xml" / "000001.xml").write_text(HAND_WRITTEN)
    (folder / "xml" / "000002.xml").write_text(voc_xml([("car", (3, 4, 3, 4))], "000002.jpg"))
    coco, out = convert(images=False)
    assert coco["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "dining table"}, {"id": 3, "name": "person"}]
    assert coco["images"] == [{"id": 1, "file_name": "000001.jpg", "width": 353, "height": 500},
                              {"id": 2, "file_name": "000002.jpg", "width": 64, "height": 48}]
    assert all(entry.pop("segmentation") == [] for entry in coco["annotations"])
    assert coco["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 353, 500], "area": 176500, "iscrowd": 0, "truncated": 1},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [47.5, 239, 147.5, 132], "area": 19470, "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [2, 3, 1, 1], "area": 1, "iscrowd": 0}]
    assert "2 images, 3 boxes, 1 of them difficult (iscrowd), 3 classes: car, dining table, person\n" in out


def test_edges_that_count_from_0(folder, convert):
    (folder / "xml" / "a.xml").write_text(voc_xml([("cat", (0, 0, 64, 48)), ("cat", (1.25, 2, 3.5, 40))]))
    coco, _ = convert("--zero_based", images=False)
    assert [entry["bbox"] for entry in coco["annotations"]] == [[0, 0, 64, 48], [1.25, 2, 2.25, 38]]


def test_a_image_covered_whole_flips_to_itself(folder, convert):
    """The formula fits the boxes of the data pipeline, whose right edge is the image's width."""
    (folder / "xml" / "a.xml").write_text(voc_xml([("cat", (1, 1, 64, 48))]))
    write_image(folder / "jpg" / "a.jpg")
    convert()
    [record] = load_coco(str(folder / "out.json"), str(folder / "jpg")).records
    assert record.boxes.tolist() == [[0, 0, 64, 48]]


def test_difficult_objects_neither_train_nor_count(folder, convert):
    (folder / "xml" / "a.xml").write_text(voc_xml([("cat", (1, 1, 9, 9)), ("dog", (5, 5, 9, 9), "<difficult>1</difficult>")]))
    write_image(folder / "jpg" / "a.jpg")
    convert()
    dataset = load_coco(str(folder / "out.json"), str(folder / "jpg"))
    assert dataset.names == ["cat", "dog"] and dataset.drops["crowd"] == 1
    assert dataset.records[0].labels.tolist() == [0]
    assert [entry["iscrowd"] for entry in dataset.coco_json["annotations"]] == [0, 1]


def test_names_give_the_order_and_may_be_absent_from_the_data(folder, convert):
    (folder / "xml" / "a.xml").write_text(voc_xml([("traffic light", (1, 1, 9, 9)), ("bus", (1, 1, 9, 9))]))
    coco, _ = convert("--names", "traffic light, zebra,bus", images=False)
    assert [entry["name"] for entry in coco["categories"]] == ["traffic light", "zebra", "bus"]
    assert [entry["category_id"] for entry in coco["annotations"]] == [1, 3]


@pytest.mark.parametrize("lines", ["b\na 2\n", "\ufeffb.jpg\r\na 2.xml\r\n\r\n", "b 1\na 2 -1\n", "b\na 2\nb\n"])
def test_a_split_keeps_ids_and_classes_stable(folder, convert, lines):
    """Names with spaces, byte order mark, extensions, VOC's flags of a class; the classes are those of all files."""
    for name, label in (("b", "cat"), ("a 2", "dog"), ("c", "ape")):
        (folder / "xml" / f"{name}.xml").write_text(voc_xml([(label, (1, 1, 9, 9))], f"{name}.jpg"))
    (folder / "train.txt").write_bytes(lines.encode())
    coco, _ = convert("--split", folder / "train.txt", images=False)
    assert [(entry["id"], entry["file_name"]) for entry in coco["images"]] == [(1, "a 2.jpg"), (2, "b.jpg")]
    assert [entry["category_id"] for entry in coco["annotations"]] == [3, 2]
    assert [entry["name"] for entry in coco["categories"]] == ["ape", "cat", "dog"]


@pytest.mark.parametrize(("filename", "image"), [
    ("a.jpg", "a.jpg"), ("a.jpg", "a.PNG"), ("a", "a.jpg"), (None, "x.jpg"), ("", "x.jpg"), ("old name.jpg", "x.bmp"),
    ("C:\\data\\my images\\a b.jpg", "a b.jpg"), ("/home/me/a.jpg", "a.jpg"), ("a.v1", "a.v1.jpeg"), ("../../a.jpg", "a.jpg"),
])
def test_how_a_image_is_found(folder, convert, filename, image):
    (folder / "xml" / "x.xml").write_text(voc_xml([("cat", (1, 1, 9, 9))], filename))
    write_image(folder / "jpg" / image)
    coco, _ = convert()
    assert [entry["file_name"] for entry in coco["images"]] == [image]
    load_coco(str(folder / "out.json"), str(folder / "jpg"))


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_size_that_is_missing_is_the_images(folder, convert, size):
    (folder / "xml" / "a.xml").write_text(voc_xml([("cat", (1, 1, 9, 9))], size=size))
    write_image(folder / "jpg" / "a.jpg", 70, 50)
    coco, _ = convert()
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (70, 50)


def test_a_rotated_image_may_be_annotated_either_way(folder, convert, refused):
    write_image(folder / "jpg" / "a.jpg", 64, 48, orientation=6)
    for size in ((64, 48), (48, 64)):
        (folder / "xml" / "a.xml").write_text(voc_xml([("cat", (1, 1, 9, 9))], size=size))
        coco, _ = convert()
        assert (coco["images"][0]["width"], coco["images"][0]["height"]) == size
    (folder / "out.json").unlink()
    write_image(folder / "jpg" / "a.jpg", 64, 48)
    assert "a.xml: its <size> is 48 x 64 (width x height), but" in refused("--images", folder / "jpg")


def test_missing_images_are_named_once(folder, convert):
    for number in range(7):
        (folder / "xml" / f"{number}.xml").write_text(voc_xml([("cat", (1, 1, 9, 9))], f"{number}.jpg"))
    write_image(folder / "jpg" / "3.jpg")
    coco, out = convert()
    assert len(coco["images"]) == 7
    assert f"6 of 7 images are not in {folder / 'jpg'}: 0.jpg, 1.jpg, 2.jpg, 4.jpg, 5.jpg, ...\n" in out


def to_voc(coco, xml_folder):
    """Write a parsed COCO file as VOC's XML files, by the inverse of the formula."""
    names = {entry["id"]: entry["name"] for entry in coco["categories"]}
    for image in coco["images"]:
        boxes = [(entry["category_id"], entry["bbox"]) for entry in coco["annotations"] if entry["image_id"] == image["id"]]
        objects = [(names[label], (x + 1, y + 1, x + w, y + h)) for label, (x, y, w, h) in boxes]
        (xml_folder / image["file_name"]).with_suffix(".xml").write_text(
            voc_xml(objects, image["file_name"], (image["width"], image["height"])))


def assert_same(dataset, other, by_name):
    """Fail unless two CocoDatasets have the same images, boxes and drops, and classes of the same names."""
    assert [os.path.basename(record.path) for record in dataset.records] == [os.path.basename(r.path) for r in other.records]
    assert dataset.drops == other.drops
    for record, twin in zip(dataset.records, other.records):
        assert (record.height, record.width) == (twin.height, twin.width)
        assert [dataset.names[label] for label in record.labels] == [other.names[label] for label in twin.labels]
        np.testing.assert_allclose(record.boxes, twin.boxes, atol=1e-4)
    if not by_name:
        assert dataset.names == other.names


def test_drawn_shapes_there_and_back(folder, convert, tmp_path):
    ensure_shapes(str(tmp_path / "shapes"), 6, 1, 64, 64, 0)
    annotations, images = tmp_path / "shapes/annotations/instances_train2017.json", tmp_path / "shapes/train2017"
    to_voc(json.loads(annotations.read_text()), folder / "xml")
    convert("--images", images, images=False)
    assert_same(load_coco(str(folder / "out.json"), str(images)), load_coco(str(annotations), str(images)), by_name=True)


def test_photographs_there_and_back(folder, convert):
    """On a real data set in COCO's layout, in $FASTER_RCNN_PHOTOGRAPHS; two of its boxes are empty."""
    root = Path(os.environ.get("FASTER_RCNN_PHOTOGRAPHS") or "not/there")
    annotations, images = root / "annotations/instances_train2017.json", root / "train2017"
    if not annotations.is_file():
        pytest.skip("set FASTER_RCNN_PHOTOGRAPHS to the folder of a data set in COCO's layout")
    before = json.loads(annotations.read_text())
    to_voc(before, folder / "xml")
    names = ",".join(entry["name"] for entry in sorted(before["categories"], key=lambda entry: entry["id"]))
    after, _ = convert("--images", images, "--names", names, images=False)
    assert len(after["annotations"]) == len(before["annotations"])
    assert_same(load_coco(str(folder / "out.json"), str(images)), load_coco(str(annotations), str(images)), by_name=False)


GOOD = voc_xml([("cat", (1, 1, 9, 9))])
LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))


@pytest.mark.parametrize(("text", "sentence"), [
    (f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]>{GOOD.replace("a.jpg", "&a11;")}', "it declares a document type"),
    (f'<!DOCTYPE x [<!ENTITY e SYSTEM "voc.xml">]>{GOOD.replace("a.jpg", "&e;")}', "it declares a document type"),
    ("<!DOCTYPE annotation>" + GOOD, "it declares a document type"),
    (GOOD.replace("a.jpg", "&undeclared;"), "is not XML that can be read: undefined entity"),
    (GOOD[:-20], "is not XML that can be read: "),
    ("", "is not XML that can be read: no element found"),
    ('<?xml version="1.0" encoding="klingon"?>' + GOOD, "is not XML that can be read: unknown encoding"),
    ("<html/>", "its outermost element is <html>, not <annotation>"),
    (GOOD.replace("name>", "label>"), "object 1 has no <name>"),
    (GOOD.replace("bndbox", "polygon"), "object 1 (cat) has no <bndbox>"),
    (GOOD.replace("xmax", "x2"), "object 1 (cat): its <bndbox> has no <xmax>"),
    (voc_xml([("cat", (1, "one", 9, 9))]), "object 1 (cat): its <bndbox> has the ymin 'one': a number of pixels is needed"),
    (voc_xml([("cat", (1, 1, "nan", 9))]), "has the xmax 'nan'"),
    (voc_xml([("cat", (1, 1, 9, "1e300"))]), "has the ymax '1e300'"),
    (voc_xml([("cat", (1, 1, 9, 9)), ("dog", (0, 1, 9, 9))]),
     "object 2 (dog) has xmin 0, ymin 1, xmax 9, ymax 9, but the first pixel is 1: if these boxes count from 0"),
    (voc_xml([("cat", (9, 1, 2, 9))]), "object 1 (cat) has xmin 9, ymin 1, xmax 2, ymax 9: it ends before it begins"),
    (voc_xml([("cat", (1, 1, 9, 9), "<difficult>perhaps</difficult>")]), "object 1 (cat) has the difficult 'perhaps': 0 or 1"),
    (voc_xml([("c\u0085at", (1, 1, 9, 9))]), "has the name 'c\\x85at'"),
    (voc_xml([("cat", (1, 1, 9, 9))], size=(64, 0)), "its <size> is 64 x 0: whole numbers of at least 1"),
    (voc_xml([("cat", (1, 1, 9, 9))], size=None), "has no <size>, and its image a.jpg is not there"),
    (voc_xml([("cat", (1, 1, 9, 9))], filename="a"), "its <filename> 'a' is not the name of an image; give the folder"),
    (voc_xml([]), "none of the 1 annotation files has an object"),
])
def test_bad_files(folder, refused, text, sentence):
    (folder / "xml" / "voc.xml").write_text(text, encoding="utf-8")
    said = refused()
    assert sentence in said and (str(folder / "xml" / "voc.xml") in said or "1 annotation files" in said)


def test_what_else_is_refused(folder, refused):
    assert "xml has no .xml file; give --annotations" in refused()
    for name in ("b", "c"):
        (folder / "xml" / f"{name}.xml").write_text(GOOD)
    assert refused().endswith(f"{folder}/xml/c.xml are both for the image a.jpg; remove one, or correct its <filename>.")
    (folder / "xml" / "c.xml").unlink()
    (folder / "list.txt").write_text("b\nlost\n")
    assert refused("--split", folder / "list.txt") == f"{folder}/list.txt lists 'lost', but {folder}/xml has no lost.xml."
    (folder / "list.txt").write_text("\n")
    assert "is empty" in refused("--split", folder / "list.txt")
    assert "gone.txt cannot be read" in refused("--split", folder / "gone.txt")
    assert "b.xml has an object of the class 'cat', which --names does not list" in refused("--names", "dog")
    assert "different names between commas are needed" in refused("--names", "cat,,dog")
    assert "there is no folder 'gone'" in refused("--images", "gone")
    assert "it is a folder; give a file's path" in refused("--output", folder)
    said = refused("--output", folder / "list.txt" / "coco.json")
    assert said == f"cannot create the folder {folder}/list.txt (File exists); give {folder}/list.txt/coco.json another path."
    (folder / "jpg" / "a.jpg").write_text("no image")
    assert "a.jpg cannot be read as an image" in refused("--images", folder / "jpg")
    write_image(folder / "jpg" / "b.png")
    write_image(folder / "jpg" / "b.jpg")
    (folder / "jpg" / "a.jpg").unlink()
    assert "b.xml: b.jpg and b.png in" in refused("--images", folder / "jpg")


def test_an_earlier_file_stays_when_the_tool_fails(folder, run_tool):
    (folder / "xml" / "a.xml").write_text("<broken")
    (folder / "out.json").write_text("earlier")
    words = ["--annotations", folder / "xml", "--output", folder / "out.json"]
    assert run_tool(voc_to_coco, *words)[0] == 1
    assert (folder / "out.json").read_text() == "earlier"


def test_the_folder_of_the_file_is_made(folder, run_tool):
    (folder / "xml" / "a.xml").write_text(GOOD)
    output = folder / "new" / "annotations" / "all.json"
    assert run_tool(voc_to_coco, "--annotations", folder / "xml", "--output", output)[0] == 0
    assert len(json.loads(output.read_text())["annotations"]) == 1


def test_as_a_program(folder):
    """Whatever the folder it is started from, and in a file system's order that is not sorted."""
    for name in ("b", "a", "c"):
        (folder / "xml" / f"{name}.xml").write_text(voc_xml([("cat", (1, 1, 9, 9))], f"{name}.jpg"))
        cv2.imwrite(str(folder / "jpg" / f"{name}.jpg"), np.zeros((48, 64, 3), np.uint8))
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "voc_to_coco.py"), "--annotations", "xml", "--images", "jpg",
                           "--output", "out.json"], cwd=folder, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "") and "out.json: 3 images, 3 boxes" in done.stdout
    coco = json.loads((folder / "out.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg", "b.jpg", "c.jpg"]
