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
