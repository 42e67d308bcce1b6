"""How a process finds out which group it belongs to, from what a launcher has set."""
import os

import pytest

from src.distributed import MsrunGroup, SingleProcess, join_processes
from src.environment import set_environment
from src.errors import UserError

LAUNCHERS = ("MS_ROLE", "MS_NODE_ID", "MS_WORKER_NUM", "DEVICE_ID", "RANK_TABLE_FILE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@pytest.fixture
def launched(monkeypatch):
    """A function that makes it look as if a launcher had set these variables and no others."""
    def set_variables(**variables):
        for name in LAUNCHERS:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    return set_variables


def test_a_worker_of_msrun_before_it_is_connected(launched):
    launched(MS_ROLE="MS_WORKER", MS_NODE_ID="11", MS_WORKER_NUM="16", DEVICE_ID="3")
    group = join_processes()
    assert isinstance(group, MsrunGroup)
    assert (group.rank, group.size, group.local_rank) == (11, 16, 3)


def test_the_scheduler_of_msrun_has_no_number(launched):
    launched(MS_ROLE="MS_SCHED", MS_WORKER_NUM="2")
    assert join_processes().size == 2


def test_a_worker_of_msrun_without_a_number(launched):
    launched(MS_ROLE="MS_WORKER", MS_WORKER_NUM="16", DEVICE_ID="3")
    with pytest.raises(UserError, match="^msrun has given this process no rank: .* --node_rank.$"):
        join_processes()


def test_rank_tables_are_refused(launched):
    launched(RANK_TABLE_FILE="/etc/hccl.json")
    with pytest.raises(UserError, match="^RANK_TABLE_FILE is set, .* with msrun or mpirun, see docs/devices.md.$"):
        join_processes()
    launched()
    assert isinstance(join_processes(), SingleProcess)


@pytest.mark.parametrize(("given", "expected"), [(None, "600"), ("90", "90")])
def test_devices_wait_for_each_others_compilation_unless_told_otherwise(monkeypatch, given, expected):
    monkeypatch.setattr(os, "environ", {"HCCL_CONNECT_TIMEOUT": given} if given else {})
    set_environment()
    assert os.environ["HCCL_CONNECT_TIMEOUT"] == expected
