"""deploy/: its copies of infer.py's reading code have the same results, and each error is one sentence."""
import io
import json

import cv2
import detect
import images
import numpy as np
import pytest
from PIL import Image

from deploy.drawing import colour_of
from detector import Detector
from src.dataset import image_paths
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
        changed = bytearray(data.getvalue())
        changed[60] ^= 255
        (tmp_path / f"changed.{kind}").write_bytes(changed)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub.png").mkdir()
    return tmp_path


def test_the_same_images_are_found_and_read(folder):
    for places in ([str(folder)], [str(folder / "*.p*"), str(folder / "a.png"), str(folder / "notes.txt")]):
        paths = images.find_files(places)
        assert paths == image_paths.find_images(places) and len(paths) > 5
        paths += ["x/A.PNG", "y/a.webp", "y/A.jpg"]
        assert images.drawing_names(paths, "out") == image_paths.drawing_names(paths, "out")
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


def write_file(path, shape=("h", "w", 3), names='["cat", "dog"]'):
    """Write a model file whose only detection is a box around the whole image: a cat, with the confidence threshold as score."""
    graph = Graph()
    size = graph.cast(graph.add("Shape", "image"), np.float32)
    box = graph.add("Gather", graph.add("Concat", np.zeros(2, np.float32), size, axis=0), np.array([0, 1, 3, 2]))
    for tensor, name in ((graph.reshape(box, 1, 4), "boxes"), ("score_threshold", "scores"), (np.zeros(1, np.int64), "labels")):
        graph.rename(graph.add("Identity", tensor), name)
    model = graph.model({"image": (np.uint8, shape)}, {"boxes": (np.float32, (1, 4)), "scores": (np.float32, (1,)),
                                                       "labels": (np.int64, (1,))},
                        {"score_threshold": np.array([0.25], np.float32)})
    if names:
        model.metadata_props.add(key="names", value=names)
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
    red = np.array(colour_of(0)[::-1])
    assert np.abs(frames[2][240, 1] - red).max() < 60 and np.abs(frames[2][240, 320] - 90.0).max() < 20


@pytest.mark.parametrize(("words", "sentence"), [
    (["a.onnx", "gone.jpg"], "there is no image or video 'gone.jpg'"),
    (["a.onnx", "empty"], "there is no image or video 'empty', nor one in a folder"),
    (["gone.onnx", "a.png"], "there is no file gone.onnx"),
    (["a.png", "a.png"], "a.png cannot be read by ONNX Runtime"),
    (["several.onnx", "a.png"], "several.onnx is no detector for single images; write it with export.py --file_format ONNX"),
    (["nameless.onnx", "a.png"], "nameless.onnx is no detector"),
    (["a.onnx", "a.png", "--output", "."], "a.png is in ., where the drawings go and might overwrite it; give another --output"),
    (["a.onnx", "empty.png", "text.jpg"], "not one of the 2 files can be read; above is the reason for each"),
    (["a.onnx", "a.png", "--output", "notes.txt"], "notes.txt could not be written (File exists)")])
def test_errors_are_one_sentence(folder, monkeypatch, capfd, words, sentence):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    write_file(folder / "a.onnx")
    write_file(folder / "several.onnx", (2, "h", "w", 3))
    write_file(folder / "nameless.onnx", names=None)
    assert detect.main(words) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1 and sentence in error


def test_unreadable_images_are_named_and_skipped(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    assert detect.main([write_file(folder / "a.onnx"), "a.png", "empty.png", "cut30.jpeg", "--output", "out"]) == 0
    output = capfd.readouterr().out
    assert "WARNING empty.png cannot be decoded (empty" in output and "WARNING cut30.jpeg cannot be decoded" in output
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.png", "detections.json"]


@pytest.mark.parametrize("value", ["2", "-0.1", "much"])
def test_thresholds_are_probabilities(value, capsys):
    with pytest.raises(SystemExit):
        detect.parse_args(["a.onnx", "a.png", "--conf_threshold", value])
    assert "--conf_threshold" in capsys.readouterr().err
