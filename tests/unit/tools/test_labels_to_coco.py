"""tools/labels_to_coco.py: worked examples of each format, and user errors."""
import json
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from src.dataset.annotations import load_coco
from src.dataset.image import read_image
from src.dataset.shapes import ensure_shapes
from tools import labels_to_coco

VOC = """<annotation><folder>VOC2007</folder><filename>{name}</filename>
  <size><width>353</width><height>500</height><depth>3</depth></size>
  <object>
    <name>person</name><truncated>1</truncated><difficult>0</difficult>
    <part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>11</xmax><ymax>11</ymax></bndbox></part>
    <bndbox><ymax>500</ymax><xmax>353</xmax><ymin>{first}</ymin><xmin>{first}</xmin></bndbox>
  </object>
  <object><name>{label}</name><difficult>1</difficult>
    <bndbox><xmin>48.5</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox>
  </object>
</annotation>"""
CVAT = """<annotations><meta><task><labels><label><name>cat</name></label><label><name>dog</name></label></labels></task></meta>
  <image id="9" name="b.png" width="200" height="100"/>
  <image id="4" name="a.png" width="200" height="100"><box label="dog" xtl="10.5" ytl="20" xbr="30" ybr="40.25"/></image>
</annotations>"""
LABELBOX = [{"data_row": {"global_key": f"{name}.png"}, "media_attributes": {"width": 200, "height": 100}, "projects": {"p": {
    "labels": [{"annotations": {"objects": objects}}]}}} for name, objects in (("b", []), ("a", [
        {"annotation_kind": "ImageBoundingBox", "name": "dog",
         "bounding_box": {"left": 10.5, "top": 20, "width": 19.5, "height": 20.25}},
        {"annotation_kind": "ImagePolygon", "name": "dog"}]))]


@pytest.fixture
def folder(tmp_path):
    """A folder with the empty folders images and labels."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    return tmp_path


@pytest.fixture
def convert(folder, run_tool):
    """A function that runs the tool with further flags; -> (the written file as a dict, standard output)."""
    def run(*flags, images="images"):
        status, out, err = run_tool(labels_to_coco, "--images", folder / images, "--output", folder / "new/out.json", *flags)
        assert (status, err) == (0, "")
        return json.loads((folder / "new/out.json").read_text()), out
    return run


def write(path, text=None, size=(200, 100), **options):
    """Write a label file with `text`, or an image of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        Image.new("RGB", size).save(path, **options)
    else:
        path.write_text(text)


@pytest.fixture
def voc(folder):
    """The flags for two VOC files, whose images exist."""
    for number, label in ((2, "sofa"), (1, "dining table")):
        write(folder / f"labels/00000{number}.xml", VOC.format(name=f"00000{number}.jpg", label=label, first=1))
        write(folder / f"images/00000{number}.jpg", size=(353, 500))
    return ["--format", "voc", "--labels", folder / "labels"]


@pytest.fixture
def yolo(folder):
    """The flags for a YOLO data set with boxes, a polygon, and background images with an empty label file and without one."""
    write(folder / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    for name in ("b.jpg", "sub/a.png", "c.jpg", "d.jpg"):
        write(folder / "images/train" / name)
    write(folder / "labels/train/b.txt", "1 0.5 0.4 0.25 0.5\n\n0\t0.05 0.9 0.1 0.2 \n")
    write(folder / "labels/train/c.txt", "")
    return ["--format", "yolo", "--labels", folder / "data.yaml"]


def boxes(coco):
    return [(box["image_id"], box["category_id"], box["iscrowd"], *np.round(box["bbox"], 6)) for box in coco["annotations"]]


def test_voc(voc, convert, folder):
    """Pixels are counted from 1 and xmax is inside the box; difficult objects do not train."""
    coco, out = convert(*voc)
    assert coco["categories"] == [{"id": 1, "name": "dining table"}, {"id": 2, "name": "person"}, {"id": 3, "name": "sofa"}]
    assert coco["images"] == [{"id": number, "file_name": f"00000{number}.jpg", "width": 353, "height": 500} for number in (1, 2)]
    assert coco["annotations"][:2] == [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 353, 500], "area": 176500, "iscrowd": 0, "truncated": 1,
         "segmentation": []},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [47.5, 239, 147.5, 132], "area": 19470, "iscrowd": 1, "truncated": 0,
         "segmentation": []}]
    assert "2 images (0 without boxes), 4 boxes (2 iscrowd), classes dining table, person, sofa\n" in out
    dataset = load_coco(str(folder / "new/out.json"), str(folder / "images"))
    assert [record.boxes.tolist() for record in dataset.records] == [[[0, 0, 353, 500]]] * 2


def test_voc_with_edges_from_0_and_a_missing_image(voc, convert, folder):
    """A missing image stays in the file and is named once."""
    write(folder / "labels/000001.xml", VOC.format(name="C:\\my images\\000001.jpg", label="sofa", first=0))
    (folder / "images/000002.jpg").unlink()
    coco, out = convert(*voc, "--zero_based", "--names", "sofa, person")
    assert boxes(coco)[:2] == [(1, 2, 0, 0, 0, 353, 500), (1, 1, 1, 48.5, 240, 146.5, 131)]
    assert len(coco["images"]) == 2 and f"1 of 2 images do not exist: {folder}/images/000002.jpg\n" in out


@pytest.mark.parametrize("line", ["000002", "\ufeff000002.xml\r\n", "000002  1\n000002 -1", "C:\\VOC\\JPEGImages\\000002.jpg"])
def test_a_list_of_images_keeps_ids_and_classes(voc, convert, folder, line):
    write(folder / "train.txt", line)
    coco, _ = convert(*voc, "--list", folder / "train.txt")
    assert [image["id"] for image in coco["images"]] == [2] and {box["category_id"] for box in coco["annotations"]} == {2, 3}
    assert [category["name"] for category in coco["categories"]] == ["dining table", "person", "sofa"]


def test_yolo(yolo, convert, folder):
    """In 200x100 pixels the centre (0.5, 0.4) is (100, 40) and the size (0.25, 0.5) is 50x50."""
    coco, out = convert(*yolo, images="images/train")
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [image["file_name"] for image in coco["images"]] == ["b.jpg", "c.jpg", "d.jpg", "sub/a.png"]
    assert boxes(coco) == [(1, 2, 0, 75, 15, 50, 50), (1, 1, 0, 0, 80, 20, 20)]
    assert "4 images (3 without boxes), 2 boxes" in out and "have no image" not in out


def test_yolo_with_polygons_and_labels_without_image(yolo, convert, folder):
    """A polygon becomes the box around it. The triangle has sides of 60 and 50 pixels; boxes stay as they are."""
    write(folder / "labels/train/sub/a.txt", "1 0.1 0.1 0.4 0.1 0.1 0.6\n0 0.5 0.5 1 1\n")
    write(folder / "labels/train/lost.txt", "1 0.5 0.5 1 1\n")
    coco, out = convert(*yolo, images="images/train")
    assert boxes(coco)[2:] == [(4, 2, 0, 20, 10, 60, 50), (4, 1, 0, 0, 0, 200, 100)]
    assert [box["area"] for box in coco["annotations"]] == pytest.approx([2500, 400, 1500, 20000])
    assert coco["annotations"][2]["segmentation"] == [pytest.approx([20, 10, 80, 10, 20, 60])]
    assert f"1 label files have no image in {folder}/images/train: lost\n" in out


@pytest.mark.parametrize(("ending", "size"), [("jpg", (64, 48)), ("png", (60, 60)), ("webp", (64, 48)), ("tif", (60, 60))])
def test_yolo_boxes_lie_on_their_objects_whatever_the_orientation(yolo, convert, folder, ending, size):
    """A white rectangle in the upright image, as OpenCV shows it, is white in the box as the data loader reads the image."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[5:15, 8:28] = 255
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        path = folder / f"images/val/{orientation}.{ending}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, exif=exif, quality=100, subsampling=0, lossless=True)
        upright = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_BGR)
        x, y, w, h = cv2.boundingRect((upright[..., 0] > 128).astype(np.uint8))
        height, width = upright.shape[:2]
        label = f"0 {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}"
        write(folder / f"labels/val/{orientation}.txt", label)
    convert(*yolo, "--split", "val", images="images/val")
    records = load_coco(str(folder / "new/out.json"), str(folder / "images/val")).records
    assert len(records) == 8
    for record in records:
        read = read_image(record.path, (record.height, record.width))
        x1, y1, x2, y2 = record.boxes[0].round().astype(int)
        assert (read[y1:y2, x1:x2] > 128).all() and (x2 - x1) * (y2 - y1) == (read[..., 0] > 128).sum() == 200


@pytest.mark.parametrize(("kind", "labels", "text"), [
    ("kitti", "labels/a.txt", "dog 0.00 0 -1.58 10.5 20 30 40.25 1.5 1.6 3.9 1.0 2.0 3.0 -1.59\n"), ("cvat", "labels.xml", CVAT),
    ("labelbox", "labels.ndjson", "\n".join(map(json.dumps, LABELBOX)))])
def test_other_formats(convert, folder, kind, labels, text):
    for name in "ab":
        write(folder / f"images/{name}.png")
    write(folder / "labels/b.txt", "")
    write(folder / labels, text)
    coco, out = convert("--format", kind, "--labels", folder / labels if kind != "kitti" else folder / "labels",
                        *(["--names", "cat,dog"] if kind != "cvat" else []))
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png"]
    assert boxes(coco) == [(1, 2, 0, 10.5, 20, 19.5, 20.25)] and coco["annotations"][0]["area"] == 394.875
    assert ("1 objects are skipped, the first: Skipping object with annotation_kind 'Im" in out) == (kind == "labelbox")


def test_a_coco_file_is_split(convert, folder, tmp_path):
    """Every image and box is in one of the files, with its ids; the split depends on the seed, not on the order of the images."""
    ensure_shapes(str(tmp_path / "shapes"), 10, 1, 64, 64, 0)
    given = json.loads((tmp_path / "shapes/annotations/instances_train2017.json").read_text())
    given["annotations"][0]["iscrowd"], chosen = 1, []
    for seed, step in ((0, 1), (0, -1), (1, 1), (2, 1), (3, 1)):
        write(folder / "all.json", json.dumps({**given, "images": given["images"][::step]}))
        train, _ = convert("--format", "coco", "--labels", folder / "all.json", "--val", folder / "val.json", "--seed", seed,
                           images=tmp_path / "shapes/train2017")
        val = json.loads((folder / "val.json").read_text())
        assert (len(train["images"]), len(val["images"])) == (8, 2) and train["categories"] == val["categories"]
        chosen.append({image["id"] for image in val["images"]})
        assert sorted([*chosen[-1], *(image["id"] for image in train["images"])]) == list(range(1, 11))
        for part, inside in ((train, False), (val, True)):
            assert boxes(part) == boxes({"annotations": [{"iscrowd": 0, **box} for box in given["annotations"]
                                                         if (box["image_id"] in chosen[-1]) is inside]})
    assert chosen[0] == chosen[1] and any(other != chosen[0] for other in chosen[2:])


FILE, YOLO = "labels/000003.xml", ["--format", "yolo", "--labels", "data.yaml", "--images", "images/val", "--split"]


@pytest.mark.parametrize(("flags", "files", "sentence"), [
    ([], {FILE: VOC.format(name="000001.jpg", label="cat", first=1)}, "has 000001.jpg twice or with the size (353, 500), and"),
    ([], {FILE: VOC.format(name="000003.jpg", label="cat", first=0)}, "--zero_based if VOC counts from 0."),
    ([], {FILE: VOC.format(name="000003.jpg", label="cat", first=400)}, "has the box [[399.0, 399.0], [353.0, 500.0]]: correct"),
    ([], {FILE: "<annotation>"}, "no voc labels (ParseError('no element found: line 1, column 12')); correct them, or"),
    (["--names", "sofa,person"], {}, "000001.xml: Unknown category name 'dining table'.\")); correct them, or"),
    (["--list", "list.txt"], {"list.txt": "000001\n000009\n"}, "--list has the line '000009', but no image has this name"),
    (["--val", "./out.json"], {}, "--images must be a folder, --val not --output, --val_fraction between 0 and 1"),
    (["--images", "gone"], {}, "--images must be a folder, --val not"),
    (["--format", "kitti"], {}, "--names for kitti and labelbox, which need it, and for voc."),
    ([*YOLO, "test"], {}, "yolo labels (ValueError(\"Split 'test' not found in config file"),
    ([*YOLO, "val"], {"labels/val/a.txt": "0 0.5 0.5 1"}, "cannot reshape array of size 3"),
    ([*YOLO, "val"], {"labels/val/a.txt": "0 0.5 x 1 1"}, "no yolo labels (ValueError(\"could not convert string"),
    ([*YOLO, "val"], {"labels/val/a.txt": "-1 0.5 0.5 1 1"}, "(ValueError('-1 is not in range'))"),
    ([*YOLO, "val"], {"labels/val/a.txt": "0 0.5 0.5 1 1 0.9"}, "cannot reshape array of size 5"),
    ([*YOLO, "val"], {"labels/val/a.txt": "0 0.5 0.5 -1 1"}, "a.png has the box [["),
    ([*YOLO, "val"], {}, "data.yaml gives 1 images and 0 boxes, too few: check all flags."),
    ([], None, "labelformat halted; None in sys.modules')); correct them, or install labelformat."),
])
def test_user_errors(voc, yolo, folder, run_tool, monkeypatch, flags, files, sentence):
    """An earlier file is still there. Without `files`, the package labelformat is missing."""
    if files is None:
        monkeypatch.setitem(sys.modules, "labelformat", files)
    monkeypatch.chdir(folder)
    write(folder / "images/val/a.png")
    write(folder / "out.json", "earlier")
    for name, text in (files or {}).items():
        write(folder / name, text)
    status, _, err = run_tool(labels_to_coco, *voc, "--images", "images", "--output", "out.json", *flags)
    assert status == 1 and err.startswith("error: ") and sentence in err and len(err.splitlines()) == 1
    assert (folder / "out.json").read_text() == "earlier"


def test_a_size_that_is_not_the_images(voc, convert, folder, run_tool):
    """A rotated photograph may be labelled as stored or upright; another size is an error."""
    exif = Image.Exif()
    exif[274] = 6
    for size, options in (((353, 500), {}), ((500, 353), {"exif": exif})):
        write(folder / "images/000002.jpg", size=size, **options)
        assert convert(*voc)[0]["images"][1]["height"] == 500
    write(folder / "images/000002.jpg", size=(500, 353))
    status, _, err = run_tool(labels_to_coco, *voc, "--images", folder / "images", "--output", folder / "out.json")
    assert status == 1 and "has 000002.jpg twice or with the size (353, 500), and the image has (500, 353): correct it." in err
