"""Detect objects with a file of export.py: python deploy/detect.py detector.onnx IMAGES_VIDEOS_OR_CAMERA ... --output FOLDER

Like infer.py, it draws the detections on each image or frame and lists them in FOLDER/detections.json. requirements.txt in this
folder lists the packages that it needs.
"""
from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from drawing import draw_boxes
from images import InputError, counts_of, drawing_names, entry_of, find_files, is_video, listing_of, read_image

from detector import Detector

JPEG_QUALITY = 92
Detect = Callable[[np.ndarray], tuple[np.ndarray, ...]]
CAMERA_RATE = 25.0  # frames per second of the file if the camera does not report it


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit status: 1 after an error, which is printed to standard error as one sentence."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may contain characters that the terminal cannot show
    args = parse_args(argv)
    try:
        run(args)
        return 0
    except (InputError, ValueError) as error:
        print(f"error: {error}.", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or args.output} could not be written ({error.strerror}).", file=sys.stderr)
    return 1


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Detect objects: draw them, and list them in detections.json.")
    parser.add_argument("detector", help="ONNX file that export.py has written")
    parser.add_argument("inputs", nargs="+", help="images and videos: files, folders or patterns; or the number of a camera, "
                        "which is recorded until Ctrl-C")
    parser.add_argument("--output", default="out", help="folder of the results (default: %(default)s)")
    parser.add_argument("--conf_threshold", type=float, help="confidence threshold, 0 to 1 (default: as exported)")
    parser.add_argument("--threads", type=int, default=0, help="number of threads; 0: one per core (default: %(default)s)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Run detection on all inputs, draw the detections, and write detections.json."""
    cameras = [place for place in args.inputs if is_camera(place)]
    paths = find_files([place for place in args.inputs if place not in cameras])
    sources = [*zip(paths, drawing_names(paths, args.output)), *((number, f"camera_{number}.mp4") for number in cameras)]
    os.makedirs(args.output, exist_ok=True)
    detector = Detector(args.detector, args.threads)
    if len(detector.session.get_inputs()[0].shape) != 3:
        raise InputError(f"{args.detector} is for several images at once; write it with export.py without --batch_size")
    found: list[dict] = []
    seconds: list[float] = []
    unreadable = 0

    def detect(image):
        start = time.perf_counter()
        detections = detector.detect(image, args.conf_threshold)
        seconds.append(time.perf_counter() - start)
        return detections

    for path, name in sources:
        try:
            found += draw_and_list(path, os.path.join(args.output, name), detect, detector.names)
        except InputError as error:
            print(f"WARNING {path} {error}")
            unreadable += 1
    if unreadable == len(sources):
        raise InputError(f"not one of the {len(sources)} files can be read; above is the reason for each")
    listing = os.path.join(args.output, "detections.json")
    atomic_write(listing, listing_of(found).encode())
    print(f"{len(found)} images, {1000 * float(np.median(seconds)):.1f} ms each (median, without reading and drawing); "
          f"{counts_of(found)}")
    print(f"drawn into {args.output}, listed in {listing}")


def draw_and_list(path: str, drawing: str, detect: Detect, names: list[str]) -> list[dict]:
    """Draw the detections on an image, on a video, or on a camera's frames until Ctrl-C, into the file `drawing`. Return one
    entry of detections.json per image or frame."""
    writer, entries = None, []
    try:
        for image, rate in frames(path):
            detections = detect(image)
            drawn = np.ascontiguousarray(draw_boxes(image, *detections, names)[..., ::-1])
            entry = entry_of(path, drawing, image, *detections, names)
            if rate is None:
                quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if drawing.endswith(".jpg") else []
                atomic_write(drawing, cv2.imencode(os.path.splitext(drawing)[1], drawn, quality)[1].tobytes())
                return [entry]
            writer = writer or cv2.VideoWriter(drawing, cv2.VideoWriter.fourcc(*"mp4v"), rate, drawn.shape[1::-1])
            if not writer.isOpened():
                raise ValueError(f"this build of OpenCV cannot write the video {drawing}")
            writer.write(drawn)
            entries.append({**dict(list(entry.items())[:2]), "frame": len(entries), **entry})
    except KeyboardInterrupt:
        if writer is None:
            raise
        print(f"{path} interrupted after {len(entries)} frames")
    finally:
        if writer is not None:
            writer.release()
    return entries


def frames(path: str) -> Iterator[tuple[np.ndarray, float | None]]:
    """Yield an image and None, or each frame of a video or camera, (h, w, 3) uint8 RGB, and the number of frames per second."""
    if not is_video(path) and not is_camera(path):
        yield read_image(path), None
        return
    capture = cv2.VideoCapture(int(path) if is_camera(path) else path)
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


def is_camera(path: str) -> bool:
    """Return whether `path` is the number of a camera."""
    return path.isdigit() and not os.path.exists(path)


def atomic_write(path: str, data: bytes) -> None:
    """Write a file. It gets its name only when it is complete."""
    partial = os.path.join(os.path.dirname(path), ".partial_" + os.path.basename(path))
    with open(partial, "wb") as file:
        file.write(data)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
