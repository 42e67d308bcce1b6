"""Two machines in an mpirun host file: network namespaces with separate addresses and host names, connected by veth."""
import os
import shutil
import subprocess

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.run_files import checkpoint
from tests.helpers.scripts import mpirun, start_logged

NAMES, ADDRESSES = tuple(f"detector-{name}-{os.getpid()}" for name in "ab"), ("10.213.77.1", "10.213.77.2")


def ip(words):
    return subprocess.run(["ip", *words.split()], capture_output=True, text=True)


def test_training_on_two_machines(config, workspace):
    """The test is skipped if this process may not create the namespaces."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("there is no `ip` (iproute2) or no `unshare` (util-linux)")
    folder, (a, b) = workspace / "two_machines", NAMES
    folder.mkdir()
    (folder / "hosts").write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    agent, log = folder / "agent.sh", folder / "output.log"
    # mpirun calls this instead of ssh, with the host and then the command.
    agent.write_text(f'#!/bin/sh\nshift\nexec ip netns exec {b} unshare --uts sh -c "hostname {b}; $*"\n')
    agent.chmod(0o755)
    launcher, *rest = mpirun(2, ROOT / "train.py", "--config", config, "--save_dir", folder, "-o", "epochs=1")
    try:
        for words in (f"netns add {a}", f"netns add {b}", f"link add veth netns {a} type veth peer name veth netns {b}"):
            if (tried := ip(words)).returncode:
                pytest.skip(f"no privilege to make or join network namespaces: {tried.stderr.strip()}")
        for name, address in zip(NAMES, ADDRESSES):
            for words in (f"addr add {address}/24 dev veth", "link set veth up", "link set lo up"):
                ip(f"-n {name} {words}")
        program = start_logged(log, ["ip", "netns", "exec", a, launcher, "--hostfile", folder / "hosts", "--prtemca",
                                     "plm_ssh_agent", agent, "--mca", "btl", "tcp,self", *rest])
        assert program.wait(timeout=300) == 0, log.read_text()[-6000:]
    finally:
        for name in NAMES:
            ip(f"netns del {name}")
    assert "for 4 images per step" in log.read_text() and "epoch 1/1 step 2/2" in log.read_text()
    assert os.path.exists(checkpoint(folder, "epoch1_rank0"))
