"""Two machines in an mpirun host file: network namespaces with separate addresses and host names, connected by veth."""
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.scripts import MPIRUN, USER_ENVIRONMENT

NAMES, ADDRESSES = tuple(f"detector-{name}-{os.getpid()}" for name in "ab"), ("10.213.77.1", "10.213.77.2")


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def machines():
    """The two namespaces; the test is skipped if this process may not create them."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("there is no `ip` (iproute2) or no `unshare` (util-linux)")
    try:
        link = ["link", "add", "veth-a", "netns", NAMES[0], "type", "veth", "peer", "name", "veth-b", "netns", NAMES[1]]
        for words in (["netns", "add", NAMES[0]], ["netns", "add", NAMES[1]], link):
            if (tried := ip(*words)).returncode:
                pytest.skip(f"no privilege to make or join network namespaces: {tried.stderr.strip()}")
        for name, address, link in zip(NAMES, ADDRESSES, ("veth-a", "veth-b")):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NAMES:
            ip("netns", "del", name)


@pytest.mark.usefixtures("machines")
def test_training_on_two_machines(config, workspace):
    (workspace / "hosts").write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    agent = workspace / "agent.sh"
    # mpirun calls this instead of ssh, with the host and then the command.
    agent.write_text(textwrap.dedent(f"""\
        #!/bin/sh
        shift
        exec ip netns exec {NAMES[1]} unshare --uts sh -c "hostname {NAMES[1]}; $*"
        """))
    agent.chmod(0o755)
    words = ["ip", "netns", "exec", NAMES[0], MPIRUN, "--allow-run-as-root", "-n", "2", "--merge-stderr-to-stdout",
             "--hostfile", workspace / "hosts", "--prtemca", "plm_ssh_agent", agent, "--mca", "btl", "tcp,self",
             sys.executable, ROOT / "train.py", "--config", config, "--save_dir", workspace / "two_machines",
             "-o", "epochs=1"]
    done = subprocess.run([str(word) for word in words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=300, env=USER_ENVIRONMENT)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "for 4 images per step" in done.stdout and "epoch 1/1 step 2/2" in done.stdout
    assert (workspace / "two_machines" / "checkpoint" / "FasterRCNN_det_resnet18_epoch1_rank0.ckpt").exists()
