"""Check whether the program works on this machine's device: python tools/check_device.py --device_target Ascend (--help: more).

Started by mpirun or msrun, it checks the exchange between these processes alone.
"""
import argparse
import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.errors import UserError  # noqa: E402
from src.run.files import make_folder  # noqa: E402
from src.run.launch import launch  # noqa: E402
from tools.device_check.exchange import RESULT, check_exchange, launch_exchange  # noqa: E402
from tools.device_check.expected import read_expected  # noqa: E402
from tools.device_check.network import check_parts  # noqa: E402
from tools.device_check.outcome import BAD, Outcome  # noqa: E402
from tools.device_check.report import summary, write_report  # noqa: E402
from tools.device_check.trainings import Trainings  # noqa: E402
from tools.device_check.versions import read_device_files, read_environment, read_versions  # noqa: E402

PARTS = tuple(read_expected())
RUNS = ("quick_start", "resume", "evaluation", "r50", "r50_fp16", "exchange")
FOLDER = "runs"  # of the children, in --save_dir

logger = logging.getLogger("faster_rcnn")


def main(args, group, _):
    """Check what is asked for and write the report; the exit status is 1 where anything failed or gave other numbers."""
    make_folder(args.save_dir)
    if group.size > 1:
        return exchange_in_group(args, group)
    if args.launched:
        raise UserError("the processes that the launcher started do not find each other.")
    tables = {"Versions": read_versions(), "CANN, driver and devices": read_device_files(), "Environment": read_environment()}
    outcomes: list[Outcome] = []

    def tell(outcome):
        outcomes.append(outcome)
        logger.info("%s: %s %s", outcome.name, outcome.result, outcome.note)
        write_report(args.report, args.device_target, tables, outcomes, args.only)

    check_everything(args, tell)
    logger.info("%s  %s", summary(outcomes, args.only), args.report)
    return int(any(outcome.result in BAD for outcome in outcomes))


def check_everything(args, tell):
    """Call `tell` with an outcome for each of args.only, after that of taking hold of the device."""
    folder = Path(args.save_dir).resolve() / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    check_parts(args.device_target, [name for name in PARTS if name in args.only], folder, args.time_limit, tell)
    trainings = Trainings(args.device_target, folder, args.time_limit)
    for name in RUNS:
        if name in args.only:
            tell(launch_exchange(args.device_target, args.devices, folder / name, args.time_limit) if name == "exchange"
                 else getattr(trainings, name)())


def exchange_in_group(args, group):
    """As one of several processes: check the exchange between them; rank 0 writes it down."""
    outcome = check_exchange(args.device_target, group)
    if outcome is None:
        return 0
    (Path(args.save_dir) / RESULT).write_text(json.dumps(dataclasses.asdict(outcome)), encoding="utf-8")
    logger.info("exchange: %s %s", outcome.result, outcome.note)
    if args.launched:
        return 0
    write_report(args.report, args.device_target, {"Versions": read_versions(), "Environment": read_environment()}, [outcome],
                 ["exchange"])
    return int(outcome.result in BAD)


def parse_args():
    """The tool's arguments."""
    parser = argparse.ArgumentParser(
        description="Check whether the program works on this machine's device: every part of the network alone, beside numbers "
                    "from a CPU; training, resuming and evaluating; the exchange between two devices. What fails is named, and "
                    "the rest goes on. The report is one file that can be put into an issue. It takes five minutes on two CPU "
                    "cores, and on a device that compiles operators when they first run, up to an hour.",
        epilog="Started by mpirun or msrun, it checks the exchange between these processes alone.", allow_abbrev=False)
    parser.add_argument("--device_target", choices=("Ascend", "GPU", "CPU"), default="Ascend", help="(default: %(default)s)")
    parser.add_argument("--save_dir", default="output/check_device", help="folder of report.md, and of all runs, where "
                        "those of an earlier check are removed (default: %(default)s)")
    parser.add_argument("--only", default=",".join((*PARTS, *RUNS)), metavar="NAMES", help="comma-separated names of what is "
                        "checked (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=2, help="for the exchange (default: %(default)s)")
    parser.add_argument("--time_limit", type=float, default=1800, help="seconds without progress after which a part is ended "
                        "(default: %(default)s)")
    parser.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)  # by `launch_exchange`
    args = parser.parse_args()
    args.only = args.only.split(",")
    for name in args.only:
        if name not in (*PARTS, *RUNS):
            raise UserError(f"--only must be some of {','.join((*PARTS, *RUNS))}, not {name!r}")
    args.report = str(Path(args.save_dir) / "report.md")
    return args


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
