"""Measure the detector's speed on this machine: python tools/benchmark.py --device_target CPU --mix False (--help lists all).

With several processes: mpirun -n 2 python tools/benchmark.py ...
"""
import time

START = time.perf_counter()

import argparse  # noqa: E402 the clock starts first
import importlib.util  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Callable  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.config import Config  # noqa: E402
from src.config.command_line import parse_train_args  # noqa: E402
from src.errors import UserError  # noqa: E402
from src.run.distributed import ROOT, Group  # noqa: E402
from src.run.files import atomic_write, prepare_output  # noqa: E402
from src.run.launch import launch  # noqa: E402
from tools.benchmarking.peer_process import FP32_ONLY, PEERS  # noqa: E402

ENVIRONMENT = dict(os.environ)  # the user's environment, before `launch` adds MindSpore's variables

DEFAULT_CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_1x_fzbn.yml"
WHAT = ("train", "predict", "data")
WHAT_HELP = (
    "comma-separated parts. train: seconds from the program's start, imports and compilation included, to the end of the first "
    "training step; seconds of a later step; and where they go (only on the CPU in graph mode), by operators, which may run side "
    "by side, so that their sum may exceed the step. predict: seconds of a batch's inference up to its detections. data: images "
    "a second of the data pipeline, and of OpenCV decoding and resizing the same files in one process. Peak memory is that of "
    "the process after train and predict")
COMPARE_HELP = (
    f"comma-separated programs, of {','.join(PEERS)}, that run the same network's inference, exported as ONNX, in turn with this "
    "one, on the CPU; with --mix True OpenVINO computes in bfloat16")
# Key of the JSON file -> name and format of the number in the printed table.
FIGURES = {
    "first_step_s": ("start to the end of the first step", "{:.1f} s"),
    "train_step_s": ("training step", "{:.3f} s"),
    "predict_s": ("inference batch", "{:.3f} s"),
    "peak_gib": ("peak memory", "{:.2f} GiB"),
    "pipeline_images_per_s": ("data pipeline", "{:.1f} images/s"),
    "plain_images_per_s": ("OpenCV alone, one process", "{:.1f} images/s"),
}

logger = logging.getLogger("faster_rcnn")


def main(arguments: tuple, group: Group, _) -> None:
    """Measure what the arguments ask for; rank 0 prints the results."""
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from src.run.device import set_up_device
    from tools.benchmarking.measure import measure_pipeline

    args, cfg = arguments
    cfg = set_up_device(cfg, group)
    if args.compare and (group.size > 1 or cfg.device_target != "CPU"):
        raise UserError(f"--compare is measured in one process on the CPU, not in {group.size} on {cfg.device_target}; start it "
                        "without mpirun or msrun and with --device_target CPU, or leave it out.")
    results = dict.fromkeys((*FIGURES, "breakdown", "comparison"))
    if args.what != ["data"]:
        results.update(measure_network(args, cfg, group))
    if "data" in args.what:
        results["pipeline_images_per_s"], results["plain_images_per_s"] = measure_pipeline(cfg)
    if group.rank == 0:
        show(results)
        if args.json:
            with atomic_write(args.json) as temporary:
                Path(temporary).write_text(json.dumps(results, indent=2), encoding="utf-8")


def measure_network(args: argparse.Namespace, cfg: Config, group: Group) -> dict:
    """Return the results of training and inference that args.what asks for."""
    from src.checkpoint import load_weights, read_checkpoint
    from src.detector import Predictor, build_detector
    from src.evaluation.detections import select_detections
    from src.run.compile_cache import inference_graphs, training_graphs, use_compile_cache
    from tools.benchmarking.measure import RepeatedTrainStep, break_down, median_seconds, noise_batch, real_batches
    from tools.benchmarking.peers import compare

    results: dict = {}
    step, canvases = None, cfg.data.canvases
    parts = [part for part in args.what if part != "data"]
    checkpoint = read_checkpoint(args.weights) if args.weights else None
    num_classes = checkpoint.num_classes if checkpoint else args.classes
    batches = real_batches(cfg, group, checkpoint, parts) if checkpoint else dict.fromkeys(parts, [noise_batch(cfg, num_classes)])
    graphs = training_graphs(canvases, canvases, cfg.accumulate_steps) if "train" in parts else inference_graphs(canvases)
    use_compile_cache(cfg, graphs, num_classes, padding_size=batches[parts[0]][0].boxes.shape[1])
    network = build_detector(cfg, num_classes, num_processes=group.size)
    if checkpoint:
        load_weights(network, checkpoint)
    if "train" in parts:
        step = RepeatedTrainStep(network, cfg, num_classes, group, batches["train"])
        step()
        results["first_step_s"] = time.perf_counter() - START
        results["train_step_s"] = median_seconds(step, args.steps)
    if "predict" in parts:
        if checkpoint:
            load_weights(network, checkpoint)  # training may have changed BatchNorm's statistics
        predictor, infer, stream = Predictor(network, cfg), cfg.infer, itertools.cycle(batches["predict"])

        def detect():
            batch = next(stream)
            for outputs in zip(*predictor(batch.image, batch.valid_size)):
                select_detections(*outputs, infer.conf_threshold, infer.nms_threshold, infer.max_box_num)
        results["predict_s"] = median_seconds(detect, args.steps)
    results["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux returns KiB
    if args.compare:
        results["comparison"] = compare(args.compare, network, cfg, predictor, batches["predict"], args.steps, ENVIRONMENT)
    if step and (cfg.device_target != "CPU" or cfg.ms_mode != 0):
        logger.info("no breakdown of the step: it is measured on the CPU, as a compiled graph, only")
    elif step:
        network.set_train()
        results["breakdown"] = break_down(step)
    if step and step.skipped:
        logger.warning("%d of %d steps overflowed and went without the update: choose another --ms_loss_scaler_value",
                       step.skipped, step.count)
    return results


def show(results: dict) -> None:
    """Print all results."""
    for key, (meaning, form) in FIGURES.items():
        if results[key] is not None:
            print(f"{meaning:36}{form.format(results[key]):>18}")
    if results["breakdown"]:
        total = sum(results["breakdown"].values())
        print("\nwhere a training step's time goes")
        for part, seconds in results["breakdown"].items():
            print(f"{part:36}{seconds:16.3f} s{seconds / total:7.1%}")
        print(f"{'sum':36}{total:16.3f} s")
    if results["comparison"]:
        show_comparison(**results["comparison"])


def show_comparison(threads: int, mix: bool, seconds: float, peers: dict) -> None:
    """Print the result of `tools.benchmarking.peers.compare`."""
    from src.export.agreement import Agreement

    print(f"\ninference before per-class NMS, in turn, {threads} threads each; ratio of this program's time to theirs")
    print(f"{f'this program, --mix {mix}':36}{seconds:16.3f} s")
    for name, peer in peers.items():
        program = f"{PEERS[name]} {peer['version']}, {peer['dtype']}{' only' * (name in FP32_ONLY)}"
        print(f"{program:36}{peer['seconds']:16.3f} s{peer['ratio']:7.2f}   {Agreement(**peer['agreement'])}")


def parse_args() -> tuple[argparse.Namespace, Config]:
    """Return the benchmark's arguments and the configuration, which they determine together with train.py's arguments."""
    parser = argparse.ArgumentParser(
        description="Measure the detector's speed on this machine, by default with random weights, on images of noise.",
        epilog="All other flags of train.py work as well, for example --device_target CPU --mix False --num_workers 1 "
               "-o infer.conf_threshold=0.01. Started by mpirun or msrun, every process takes part and the first one reports.",
        allow_abbrev=False)
    add = parser.add_argument
    add("--config", default=str(DEFAULT_CONFIG), help="YAML file (default: %(default)s)")
    add("--height", type=positive, default=768, help="of the images, rounded up to a multiple of 32 (default: %(default)s)")
    add("--width", type=positive, default=1280, help="as --height (default: %(default)s)")
    add("--batch", "--batch_size", default="2", help="images per step and device (default: %(default)s)")
    add("--steps", type=positive, default=5, help="training steps, and batches of inference, of which the median is taken, after "
        "one warm-up (default: %(default)s)")
    add("--classes", type=positive, help="number of classes without background (default: 3, or the number of the checkpoint)")
    add("--what", type=some_of(WHAT), default=list(WHAT), help=f"{WHAT_HELP} (default: {','.join(WHAT)})")
    add("--weights", help="checkpoint to measure with, on the first images of the configuration's training and validation set")
    add("--compare", type=some_of(PEERS), default=[], help=COMPARE_HELP)
    add("--json", help="file to write the results to, null for what is not measured")
    args, others = parser.parse_known_args()
    if args.weights and args.classes:
        raise UserError("--classes is the checkpoint's with --weights; leave it out")
    if args.compare and "predict" not in args.what or args.weights and args.what == ["data"]:
        raise UserError("--compare needs predict in --what, and --weights needs train or predict in --what")
    args.classes = args.classes or 3
    for package in [*args.compare, *["onnx"] * bool(args.compare)]:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--compare needs the package {package}, which is not installed; install it: pip install {package} "
                            "'numpy<2'")
    cfg = parse_train_args(["-o", f"data.target_size=[{args.height},{args.width}]", "backbone.pretrained=False",
                            "--config", args.config, "--batch_size", args.batch, *others])
    if args.json:
        prepare_output(args.json)
    return args, cfg


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that returns the names in a comma-separated text, in the order of `known`."""
    def parse(text):
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, not {sorted(unknown)[0]!r}")
        return [name for name in known if name in text.split(",")]
    return parse


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
