"""Measure the detector's speed on this machine: [mpirun -n 2] python tools/benchmark.py --device_target CPU (see --help)."""
import time

START = time.perf_counter()

import argparse  # noqa: E402 the clock starts first
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.config import Config  # noqa: E402
from src.config.command_line import parse_train_args  # noqa: E402
from src.errors import UserError  # noqa: E402
from src.run.distributed import ROOT, Group  # noqa: E402
from src.run.files import atomic_write, prepare_output  # noqa: E402
from src.run.launch import launch  # noqa: E402
from tools.benchmarking.peer_process import PEERS  # noqa: E402

ENVIRONMENT = dict(os.environ)  # the user's environment, before `launch` adds MindSpore's variables

WHAT = ("train", "predict", "data")
WHAT_HELP = (
    "comma-separated parts. train: seconds from the program's start to the end of the first training step, seconds of a later "
    "step, and on the CPU in graph mode of its operators, some of which run at the same time; predict: seconds of a batch up to "
    "its detections; data: images per second of the data pipeline, and of OpenCV alone for the same files. peak_gib is the peak "
    "memory of train and predict")
FIGURES = ("first_step_s", "train_step_s", "predict_s", "peak_gib", "pipeline_images_per_s", "plain_images_per_s")


def main(arguments: tuple, group: Group, _) -> None:
    """Run the measurements of args.what; rank 0 prints the results."""
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from src.run.device import set_up_device
    from tools.benchmarking.measure import measure_network, measure_pipeline

    args, cfg = arguments
    cfg = set_up_device(cfg, group)
    if args.compare and (group.size > 1 or cfg.device_target != "CPU"):
        raise UserError(f"--compare is measured in one process on the CPU, not in {group.size} on {cfg.device_target}; start it "
                        "without mpirun or msrun and with --device_target CPU, or leave it out.")
    results = dict.fromkeys((*FIGURES, "breakdown", "comparison"))
    if args.what != ["data"]:
        results.update(measure_network(args, cfg, group, START, ENVIRONMENT))
    if "data" in args.what:
        results["pipeline_images_per_s"], results["plain_images_per_s"] = measure_pipeline(cfg)
    if group.rank == 0:
        show(results)
        if args.json:
            with atomic_write(args.json) as temporary:
                Path(temporary).write_text(json.dumps(results, indent=2), encoding="utf-8")


def show(results: dict) -> None:
    """Print all results."""
    from src.export.agreement import Agreement

    for key in FIGURES:
        if results[key] is not None:
            print(f"{key:36}{results[key]:16.3f}")
    if breakdown := results["breakdown"]:
        print("\nwhere a training step's time goes")
        for part, seconds in {**breakdown, "sum": sum(breakdown.values())}.items():
            print(f"{part:36}{seconds:16.3f} s{seconds / sum(breakdown.values()):7.1%}")
    if comparison := results["comparison"]:
        print(f"\ninference before per-class NMS, in turn, {comparison['threads']} threads each; ratio of this program's time to "
              f"the peer's\n{'this program, --mix ' + str(comparison['mix']):36}{comparison['seconds']:16.3f} s")
        for name, peer in comparison["peers"].items():
            program = f"{PEERS[name]} {peer['version']}, {peer['dtype']}"
            print(f"{program:36}{peer['seconds']:16.3f} s{peer['ratio']:7.2f}   {Agreement(**peer['agreement'])}")


def parse_args() -> tuple[argparse.Namespace, Config]:
    """Return the benchmark's arguments and the configuration, which they determine together with train.py's arguments."""
    parser = argparse.ArgumentParser(
        description="Measure the detector's speed on this machine, by default with random weights, on images of noise.",
        epilog="All other flags of train.py work as well, for example --device_target CPU --mix False --num_workers 1 "
               "-o infer.conf_threshold=0.01. Started by mpirun or msrun, every process takes part and the first one reports.",
        allow_abbrev=False)
    add = parser.add_argument
    add("--config", default=str(ROOT / "config/faster_rcnn/faster_rcnn_resnet50_fpn_1x_fzbn.yml"), help="(default: %(default)s)")
    add("--height", type=int, default=768, help="of the images, rounded up to a multiple of 32 (default: %(default)s)")
    add("--width", type=int, default=1280, help="as --height (default: %(default)s)")
    add("--batch", "--batch_size", default="2", help="images per step and device (default: %(default)s)")
    add("--steps", type=int, default=5, help="steps and batches for the medians, after one for warm-up (default: %(default)s)")
    add("--classes", type=int, help="number of classes without background (default: 3, or the number of the checkpoint)")
    add("--what", type=some_of(WHAT), default=list(WHAT), help=f"{WHAT_HELP} (default: {','.join(WHAT)})")
    add("--weights", help="checkpoint to measure with, on the first images of the configuration's training and validation set")
    add("--compare", type=some_of(PEERS), default=[],
        help=f"run the same network's inference, exported as ONNX, in turn in these programs, on the CPU: {','.join(PEERS)}")
    add("--json", help="JSON file of the results, with null for parts that are not measured")
    args, others = parser.parse_known_args()
    if args.weights and args.classes:
        raise UserError("--classes is the checkpoint's with --weights; leave it out")
    if args.compare and "predict" not in args.what or args.weights and args.what == ["data"]:
        raise UserError("--compare needs predict in --what, and --weights needs train or predict in --what")
    args.classes = 3 if args.classes is None else args.classes
    if min(args.height, args.width, args.steps, args.classes) < 1:
        raise UserError("--height, --width, --steps and --classes must be at least 1")
    for package in [*args.compare, *["onnx"] * bool(args.compare)]:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--compare needs the package {package}, which is not installed; install it: pip install {package} "
                            "'numpy<2'")
    cfg = parse_train_args(["-o", f"data.target_size=[{args.height},{args.width}]", "backbone.pretrained=False",
                            "--config", args.config, "--batch_size", args.batch, *others])
    if args.json:
        prepare_output(args.json)
    return args, cfg


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that returns the names in a comma-separated text, in the order of `known`."""
    def parse(text):
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, not {sorted(unknown)[0]!r}")
        return [name for name in known if name in text.split(",")]
    return parse


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
