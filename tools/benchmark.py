"""Measure the detector's speed on this machine: python tools/benchmark.py --device_target CPU --mix False (--help lists all).

With several processes: mpirun -n 2 python tools/benchmark.py ...
"""
import time

START = time.perf_counter()

import argparse  # noqa: E402 the clock starts first
import importlib.util  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.config import config_to_dict  # noqa: E402
from src.config.command_line import parse_train_args  # noqa: E402
from src.errors import UserError  # noqa: E402
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


def main(arguments, group, _):
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from src.run.device import set_up_device
    from src.run.distributed import check_same_program
    from tools.benchmarking.pipeline import measure_pipeline

    args, cfg = arguments
    cfg = set_up_device(cfg, group)
    check_same_program(group, config_to_dict(cfg))
    if args.compare:
        require_one_cpu_process(cfg, group)
    results = dict.fromkeys((*FIGURES, "breakdown", "comparison"))
    if args.what != ["data"]:
        results.update(measure_network(args, cfg, group))
    if "data" in args.what:
        results["pipeline_images_per_s"], results["plain_images_per_s"] = measure_pipeline(cfg)
    if group.rank == 0:
        show(results)
        if args.json:
            with atomic_write(args.json) as temporary, open(temporary, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=2)


def require_one_cpu_process(cfg, group):
    """Raise a UserError if there are several processes or the device is not the CPU, on which the peers run."""
    if group.size > 1:
        raise UserError("--compare is measured in one process; start it without mpirun or msrun, or leave it out")
    if cfg.device_target != "CPU":
        raise UserError(f"--compare is measured on the CPU, and device_target is {cfg.device_target}; give --device_target CPU, "
                        "or leave it out")


def measure_network(args, cfg, group):
    """Return the results of training and inference that args.what asks for, as a dict."""
    from src.checkpoint import load_weights, read_checkpoint
    from src.detector import Predictor, build_detector
    from src.run.compile_cache import inference_graphs, training_graphs, use_compile_cache
    from src.run.device import norm_layer
    from tools.benchmarking.breakdown import break_down
    from tools.benchmarking.inputs import noise_batch, real_batches
    from tools.benchmarking.peers import compare
    from tools.benchmarking.steps import RepeatedInference, RepeatedTrainStep, median_seconds

    results = {}
    parts = [part for part in args.what if part != "data"]
    checkpoint = read_checkpoint(args.weights) if args.weights else None
    num_classes = checkpoint.num_classes if checkpoint else args.classes
    batches = real_batches(cfg, group, checkpoint, parts) if checkpoint else dict.fromkeys(parts, [noise_batch(cfg, num_classes)])
    canvases = cfg.data.canvases
    of_training = training_graphs(canvases, canvases, cfg.accumulate_steps)
    graphs = of_training if "train" in parts else inference_graphs(canvases)
    use_compile_cache(cfg, graphs, num_classes, padding_size=batches[parts[0]][0].boxes.shape[1])
    network = build_detector(cfg, num_classes, norm_layer(cfg, group))
    if checkpoint:
        load_weights(network, checkpoint)
    step = None
    if "train" in parts:
        step = RepeatedTrainStep(network, cfg, num_classes, group, batches["train"])
        step()
        results["first_step_s"] = time.perf_counter() - START
        results["train_step_s"] = median_seconds(step, args.steps)
    if "predict" in parts:
        if checkpoint:
            load_weights(network, checkpoint)  # training may have changed BatchNorm's statistics
        predictor = Predictor(network, cfg)
        results["predict_s"] = median_seconds(RepeatedInference(predictor, cfg, batches["predict"]), args.steps)
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


def show(results):
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


def show_comparison(threads, mix, seconds, peers):
    """Print the result of `tools.benchmarking.peers.compare`."""
    from src.export.agreement import Agreement

    print(f"\ninference before suppression by class, in turn, {threads} threads each; ratio of this program's time to theirs")
    print(f"{f'this program, --mix {mix}':36}{seconds:16.3f} s")
    for name, peer in peers.items():
        program = f"{PEERS[name]} {peer['version']}, {peer['dtype']}{' only' * (name in FP32_ONLY)}"
        print(f"{program:36}{peer['seconds']:16.3f} s{peer['ratio']:7.2f}   {Agreement(**peer['agreement'])}")


def parse_args():
    """Return the benchmark's arguments and the configuration, which they determine together with train.py's arguments."""
    args, others = build_parser().parse_known_args()
    if args.weights and args.classes:
        raise UserError("--classes is the checkpoint's with --weights; leave it out")
    args.classes = args.classes or "3"
    for name in ("height", "width", "steps", "classes"):
        value = getattr(args, name)
        if not value.isdecimal() or int(value) < 1:
            raise UserError(f"--{name} must be a whole number of at least 1, not {value!r}")
        setattr(args, name, int(value))
    args.what = some_of("what", args.what, WHAT)
    args.compare = some_of("compare", args.compare, PEERS) if args.compare else []
    if args.compare and "predict" not in args.what:
        raise UserError("--compare is about inference; give it with predict in --what, or leave it out")
    if args.weights and args.what == ["data"]:
        raise UserError("--weights is about train and predict; give one of them in --what, or leave it out")
    check_installed(args.compare)
    cfg = parse_train_args(["-o", f"data.target_size=[{args.height},{args.width}]", "backbone.pretrained=False",
                            "--config", args.config, "--batch_size", args.batch, *others])
    if args.json:
        prepare_output(args.json)
    return args, cfg


def some_of(flag, text, known):
    """Return the names in the comma-separated text, in the order of `known`."""
    asked = text.split(",")
    for name in asked:
        if name not in known:
            raise UserError(f"--{flag} must be some of {','.join(known)}, not {name!r}")
    return [name for name in known if name in asked]


def check_installed(peers):
    """Raise a UserError if the package of a peer, or the package that writes its ONNX file, is missing."""
    for package in [*peers, *["onnx"] * bool(peers)]:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--compare {','.join(peers)} needs the package {package}, which is not installed; install it: "
                            f"pip install {package} 'numpy<2'")


def build_parser():
    parser = argparse.ArgumentParser(
        description="Measure the detector's speed on this machine, by default with random weights, on images of noise.",
        epilog="All other flags of train.py work as well, for example --device_target CPU --mix False --num_workers 1 "
               "-o infer.conf_threshold=0.01. Started by mpirun or msrun, every process takes part and the first one reports.",
        allow_abbrev=False)
    own = {
        "--config": (str(DEFAULT_CONFIG), "YAML file"),
        "--height": ("768", "of the images, rounded up to a multiple of 32"),
        "--width": ("1280", "as --height"),
        "--batch": ("2", "images a step and device"),
        "--steps": ("5", "training steps, and batches of inference, of which the median is taken; one before does not count"),
        "--classes": ("", "number of objects' classes, without background; 3, or the checkpoint's, where it is left out"),
        "--what": (",".join(WHAT), WHAT_HELP),
        "--weights": ("", "checkpoint to measure with, on the first images of the configuration's training and validation set"),
        "--compare": ("", COMPARE_HELP),
        "--json": ("", "file to write the results to, null where nothing was measured"),
    }
    for flag, (default, meaning) in own.items():
        names = [flag, "--batch_size"] if flag == "--batch" else [flag]
        parser.add_argument(*names, default=default, metavar=flag[2:].upper(), help=f"{meaning} (default: {default or 'none'})")
    return parser


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
