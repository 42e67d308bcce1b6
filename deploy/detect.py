"""Detect objects with a file of export.py: python deploy/detect.py detector.onnx IMAGES_VIDEOS_OR_CAMERA ... --output FOLDER

Like infer.py, it draws the detections on each image or frame and lists them in FOLDER/detections.json. It needs only NumPy,
OpenCV, ONNX Runtime and Pillow, see requirements.txt in this folder.
"""
from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Callable

import cv2
import numpy as np
from drawing import draw_boxes
from images import InputError, drawing_names, find_files, is_video, read_image

from detector import Detector

JPEG_QUALITY = 92
CAMERA_RATE = 25.0  # frames per second of the file if the camera does not report it

Detect = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit status: 1 after an error, which is printed to standard error as one sentence."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may contain characters that the terminal cannot show
    args = parse_args(argv)
    try:
        run(args)
    except (InputError, ValueError) as error:
        print(f"error: {error}.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or args.output} could not be written ({error.strerror}).", file=sys.stderr)
        return 1
    return 0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Detect objects: draw them, and list them in detections.json.")
    parser.add_argument("detector", help="file that export.py --file_format ONNX has written")
    parser.add_argument("inputs", nargs="+", help="images and videos: files, folders or patterns; or the number of a camera, "
                        "whose frames are taken until Ctrl-C")
    parser.add_argument("--output", default="out", help="folder of the results (default: %(default)s)")
    parser.add_argument("--conf_threshold", type=probability, help="lowest score of a detection (default: as exported)")
    parser.add_argument("--threads", type=int, default=0, help="that compute; 0: one for each core (default: %(default)s)")
    return parser.parse_args(argv)


def probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return value


def run(args: argparse.Namespace) -> None:
    """Run detection on all inputs, draw the detections, and write detections.json."""
    cameras = [place for place in args.inputs if place.isdigit() and not os.path.exists(place)]
    paths = find_files([place for place in args.inputs if place not in cameras])
    names = drawing_names(paths, args.output)
    os.makedirs(args.output, exist_ok=True)
    detector = Detector(args.detector, args.threads)
    found: list[dict] = []
    seconds: list[float] = []
    unreadable = 0

    def detect(image):
        start = time.perf_counter()
        detections = detector.detect(image, args.conf_threshold)
        seconds.append(time.perf_counter() - start)
        return detections

    sources = list(zip(paths, names)) + [(number, f"camera_{number}.mp4") for number in cameras]
    for path, name in sources:
        drawing = os.path.join(args.output, name)
        video = path in cameras or is_video(path)
        try:
            found += on_video(path, drawing, detect, detector.names) if video else on_image(path, drawing, detect, detector.names)
        except InputError as error:
            print(f"WARNING {path} {error}")
            unreadable += 1
    if unreadable == len(sources):
        raise InputError(f"not one of the {len(sources)} files can be read; above is the reason for each")
    write_whole(os.path.join(args.output, "detections.json"),
                ("[" + ",\n ".join(json.dumps(entry, allow_nan=False) for entry in found) + "]\n").encode())
    counts = Counter(row["category"] for entry in found for row in entry["detections"])
    print(f"{len(found)} images, {1000 * float(np.median(seconds)):.1f} ms each (median, without reading and drawing); "
          f"{sum(counts.values())} detections" + "".join(f", {count} {name}" for name, count in counts.most_common()))
    print(f"drawn into {args.output}, listed in {os.path.join(args.output, 'detections.json')}")


def on_image(path: str, drawing: str, detect: Detect, names: list[str]) -> list[dict]:
    """Draw the detections of an image into the file `drawing`, and return the image's entry for detections.json."""
    image = read_image(path)
    boxes, scores, labels = detect(image)
    ending = os.path.splitext(drawing)[1]
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if ending == ".jpg" else []
    _, data = cv2.imencode(ending, draw_boxes(image, boxes, scores, labels, names)[..., ::-1], quality)
    write_whole(drawing, data.tobytes())
    return [{"file": path, "drawing": drawing, "height": image.shape[0], "width": image.shape[1],
             "detections": rows(boxes, scores, labels, names)}]


def on_video(path: str, drawing: str, detect: Detect, names: list[str]) -> list[dict]:
    """Draw the detections of a video, or of a camera until Ctrl-C, and return one entry with the frame number per frame."""
    writer, entries = None, []
    try:
        for number, (image, rate) in enumerate(frames(path)):
            boxes, scores, labels = detect(image)
            drawn = draw_boxes(image, boxes, scores, labels, names)
            if writer is None:
                size = drawn.shape[1], drawn.shape[0]
                writer = cv2.VideoWriter(drawing, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise ValueError(f"this build of OpenCV cannot write the video {drawing}")
            writer.write(np.ascontiguousarray(drawn[..., ::-1]))
            entries.append({"file": path, "drawing": drawing, "frame": number, "height": image.shape[0], "width": image.shape[1],
                            "detections": rows(boxes, scores, labels, names)})
    except KeyboardInterrupt:
        print(f"{path} interrupted after {len(entries)} frames")
    finally:
        if writer is not None:
            writer.release()
    return entries


def frames(path: str) -> Iterator[tuple[np.ndarray, float]]:
    """Yield each frame, (h, w, 3) uint8 RGB, with the number of frames per second."""
    capture = cv2.VideoCapture(int(path) if path.isdigit() and not os.path.exists(path) else path)
    try:
        there, image = capture.read()
        if not there:
            raise InputError("cannot be opened as a video or camera, or has no frame")
        rate = capture.get(cv2.CAP_PROP_FPS)
        while there:
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), rate if rate > 0 else CAMERA_RATE
            there, image = capture.read()
    finally:
        capture.release()


def rows(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, names: list[str]) -> list[dict]:
    """Return detections in the format of detections.json: bbox is x, y, width, height in pixels of the image."""
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    return [{"bbox": box, "category": names[label], "label": label, "score": score}
            for box, score, label in zip(xywh.tolist(), scores.tolist(), labels.tolist())]


def write_whole(path: str, data: bytes) -> None:
    """Write a file. It gets its name only when it is complete."""
    partial = os.path.join(os.path.dirname(path), ".partial_" + os.path.basename(path))
    with open(partial, "wb") as file:
        file.write(data)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
