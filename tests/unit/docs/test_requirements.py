"""Packages that `pip install -r requirements.txt` installs."""
import re

from tests.helpers.paths import ROOT


def test_an_installation_brings_what_several_processes_need():
    """Commands in docs start several processes with mpirun, so mpi4py is a dependency and not an extra."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["."]
    project = re.search(r"^\[project\]\n(.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.M | re.S)[1]
    dependencies = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.M | re.S)[1]
    names = re.findall(r'^ +"([\w-]+)', dependencies, re.M)
    assert {"mindspore", "mpi4py"} <= set(names)
