"""What several processes do together at their start: they compare what must be the same, and open the data."""
import hashlib
import json
from pathlib import Path

import mindspore as ms

from src.config.load import config_to_dict
from src.dataset.open import open_dataset

ROOT = Path(__file__).resolve().parents[1]


def program_digest():
    """A digest of the program's files and MindSpore's version."""
    digest = hashlib.sha256(ms.__version__.encode())
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("src/**/*.py"), *ROOT.glob("src/cpu_kernels/*.cc"),
                        *ROOT.glob("src/cpu_kernels/*.h")]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def check_program(group, cfg):
    """Check that all processes run the same code and MindSpore with the same configuration.

    Raises:
        UserError: on rank 0, if they do not.
    """
    def describe():
        settings = json.dumps(config_to_dict(cfg), sort_keys=True)
        return {"version of this program or of MindSpore": program_digest(), "configuration": settings}

    group.check_same(describe)


def open_dataset_together(cfg, split, group):
    """The records of one split, from the same annotation file on all processes; see `open_dataset`.

    Where the program draws its data, one process of each machine does.

    Raises:
        UserError: see `open_dataset`; the files differ.
    """
    with group.first_on_machine():
        dataset = open_dataset(cfg.data, split)

    def describe():
        digest = hashlib.sha256(Path(dataset.annotation_path).read_bytes()).hexdigest()
        return {f"content of {dataset.annotation_path}": digest}

    group.check_same(describe)
    return dataset
