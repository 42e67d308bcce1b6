"""How several processes are started."""
import shutil
import sys
from pathlib import Path

BESIDE_PYTHON = Path(sys.executable).parent / "mpirun"
MPIRUN = str(BESIDE_PYTHON) if BESIDE_PYTHON.exists() else shutil.which("mpirun")


def launch(ranks, *words):
    """The command that starts `words`, a Python program and its arguments, as several processes."""
    return [MPIRUN, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), "--merge-stderr-to-stdout",
            sys.executable, *map(str, words)]


def give_graphs_to_all(workspace, ranks=4):
    """Copy the compiled graphs of rank 0 to ranks that have none: on the CPU all ranks have the same ones."""
    for own in (workspace / "compiled").glob("*/rank0"):
        for other in (own.with_name(f"rank{rank}") for rank in range(1, ranks)):
            if not other.exists():
                shutil.copytree(own, other)
