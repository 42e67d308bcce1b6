"""deploy/: finding and reading images, the class Detector, videos, and errors of one sentence."""
import io
import json

import cv2
import detect
import images
import numpy as np
import pytest
from PIL import Image

from detector import Detector
from src.dataset.image import UnreadableImageError
from src.dataset.image import read_image as read_image_here
from src.export.onnx_graph import Graph


@pytest.fixture
def folder(tmp_path):
    """Images of many formats, and other files."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, kept in (("a.png", image), ("b.JPG", image), ("c.webp", image.convert("RGBA")), ("d.bmp", image.convert("L"))):
        kept.save(tmp_path / name)
    image.save(tmp_path / "turned.jpg", exif=exif)
    for kind in ("png", "jpeg"):
        data = io.BytesIO()
        image.save(data, kind)
        for part in (10, 30, 300, len(data.getvalue()) - 3):
            (tmp_path / f"cut{part}.{kind}").write_bytes(data.getvalue()[:part])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    return tmp_path


def test_images_are_read_as_in_training(folder):
    """Also damaged images are refused by both."""
    unreadable = 0
    for path in images.find_files([str(folder)]):
        try:
            expected = read_image_here(path)
        except UnreadableImageError:
            unreadable += 1
            with pytest.raises(images.InputError):
                images.read_image(path)
        else:
            np.testing.assert_array_equal(images.read_image(path), expected)
    assert unreadable >= 10


def write_file(path, shape=("h", "w", 3), **metadata):
    """Write a model file whose only detection is a box around the whole image: a cat, with the confidence threshold as score."""
    op = Graph()
    size = op.cast(op.Shape("image"), np.float32)
    box = op.reshape(op.Gather(op.Concat(np.zeros(2, np.float32), size, axis=0), np.array([0, 1, 3, 2])), 1, 4)
    model = op.model({"image": (np.uint8, shape)},
                     {"boxes": (box, np.float32, (1, 4)), "scores": ("score_threshold", np.float32, (1,)),
                      "labels": (op.Identity(np.zeros(1, np.int64)), np.int64, (1,))},
                     {"score_threshold": np.array([0.25], np.float32)}, metadata or {"names": '["cat", "dog"]'})
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_the_class_that_people_copy(tmp_path):
    detector = Detector(write_file(tmp_path / "a.onnx"))
    image = np.zeros((30, 20, 3), np.uint8)[:, ::-1]  # not contiguous in memory
    boxes, scores, labels = detector.detect(image)
    assert detector.names == ["cat", "dog"] and boxes.tolist() == [[0, 0, 20, 30]] and scores[0] == 0.25 and labels[0] == 0
    assert detector.detect(image, 0.5)[1][0] == 0.5


def test_a_video_is_drawn_and_listed_frame_by_frame(tmp_path):
    path, out = tmp_path / "v.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (640, 480))
    for _ in range(3):
        writer.write(np.full((480, 640, 3), 90, np.uint8))
    writer.release()
    assert detect.main([write_file(tmp_path / "a.onnx"), str(path), "--output", str(out), "--conf_threshold", "0.5"]) == 0
    entries = json.loads((out / "detections.json").read_text())
    assert [entry["frame"] for entry in entries] == [0, 1, 2]
    assert entries[1] == {"file": str(path), "drawing": str(out / "v.mp4"), "frame": 1, "height": 480, "width": 640,
                          "detections": [{"bbox": [0, 0, 640, 480], "category": "cat", "label": 0, "score": 0.5}]}
    capture = cv2.VideoCapture(str(out / "v.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert len(frames) == 3 and round(capture.get(cv2.CAP_PROP_FPS)) == 12
    assert np.abs(frames[2][240, 1] - (34.0, 51, 221)).max() < 60 and np.abs(frames[2][240, 320] - 90.0).max() < 20


@pytest.mark.parametrize(("words", "sentence"), [
    (["a.onnx", "gone.jpg"], "there is no file 'gone.jpg'"), (["gone.onnx", "a.png"], "there is no file gone.onnx"),
    (["a.png", "a.png"], "a.png cannot be read by ONNX Runtime"),
    (["several.onnx", "a.png"], "several.onnx is for several images at once; write it with export.py without --batch_size"),
    (["nameless.onnx", "a.png"], "nameless.onnx is not a detector; write it with export.py, without --raw and --mindir"),
    (["a.onnx", "a.png", "--output", "."], "a.png is in ., where the drawings are written and might overwrite it"),
    (["a.onnx", "empty.png", "text.jpg"], "not one of the 2 files can be read; above is the reason for each"),
    (["a.onnx", "a.png", "--output", "a.onnx"], "a.onnx could not be written (File exists)")])
def test_errors_are_one_sentence(folder, monkeypatch, capfd, words, sentence):
    monkeypatch.chdir(folder)
    write_file(folder / "a.onnx")
    write_file(folder / "several.onnx", (2, "h", "w", 3))
    write_file(folder / "nameless.onnx", version="1")
    assert detect.main(words) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1 and sentence in error
