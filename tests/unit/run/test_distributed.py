"""How a process finds its group from the variables of a launcher."""
import json
import os
import socket

import pytest
from mindspore import communication

from src.errors import UserError
from src.run.distributed import MsrunGroup, SingleProcess, join_processes
from src.run.environment import set_environment

LAUNCHERS = ("MS_ROLE", "MS_NODE_ID", "MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_NODE_TIMEOUT", "DEVICE_ID",
             "ASCEND_DEVICE_ID", "RANK_TABLE_FILE", "RANK_ID", "RANK_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@pytest.fixture
def launched(monkeypatch):
    """A function that sets these variables of a launcher and removes all other ones."""
    def set_variables(**variables):
        kept = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
        monkeypatch.setattr(os, "environ", {**kept, **variables})
    return set_variables


def test_processes_of_msrun_before_they_are_connected(launched):
    launched(MS_ROLE="MS_WORKER", MS_NODE_ID="11", MS_WORKER_NUM="16", DEVICE_ID="3")
    group = join_processes()
    assert isinstance(group, MsrunGroup) and (group.rank, group.size, group.local_rank) == (11, 16, 3)
    launched(MS_ROLE="MS_SCHED", MS_WORKER_NUM="2")  # the scheduler has no number
    assert join_processes().size == 2
    launched(MS_ROLE="MS_WORKER", MS_WORKER_NUM="16", DEVICE_ID="3")
    with pytest.raises(UserError, match="^msrun has given this process no rank: .* --node_rank.$"):
        join_processes()


DEVICES = [{"device_id": str(i), "device_ip": f"192.1.27.{i}"} for i in range(2)]


def cards(first):
    """Return the list of a server's two devices with ranks from `first`."""
    return [{**own, "rank_id": str(first + i)} for i, own in enumerate(DEVICES)]


# Rank tables of HCCL's documentation, version 1.0 and 1.2, and ModelArts' older format, each with the host of rank 0.
TABLES = {
    "1.0": ({"version": "1.0", "server_list": [{"server_id": "10.155.111.140", "device": cards(2)},
                                               {"server_id": "10.155.111.141", "device": cards(0)}]}, "10.155.111.141"),
    "1.2": ({"version": "1.2", "server_list": [
        {"server_id": f"node_{number}", "host_ip": f"172.16.0.{number}", "device": cards(2 * number)} for number in range(2)]},
        "172.16.0.0"),
    "one server": ({"version": "1.0", "server_list": [{"server_id": "192.168.0.25", "device": cards(0)}]}, "127.0.0.1"),
    "older": ({"group_list": [{"group_name": "job-trainjob", "instance_list": [
        {"pod_name": f"job-{number}", "server_id": f"192.168.0.{number}", "devices": DEVICES} for number in (25, 26)]}]},
        "192.168.0.25")}


@pytest.mark.parametrize("name", TABLES)
def test_a_card_of_several_in_a_rank_table_is_a_worker_as_of_msrun(launched, tmp_path, name):
    """MindSpore no longer starts from a rank table, so it does not see it."""
    table, host = TABLES[name]
    path = tmp_path / "hccl.json"
    path.write_text(json.dumps(table))
    launched(RANK_TABLE_FILE=str(path), RANK_ID="3", RANK_SIZE="4", ASCEND_DEVICE_ID="1")
    group = join_processes()
    assert isinstance(group, MsrunGroup) and (group.rank, group.size, group.local_rank) == (3, 4, 1)
    assert {key: os.environ.get(key) for key in ("MS_ROLE", "MS_SCHED_HOST", "MS_SCHED_PORT", "RANK_TABLE_FILE")} == {
        "MS_ROLE": "MS_WORKER", "MS_SCHED_HOST": host, "MS_SCHED_PORT": "8118", "RANK_TABLE_FILE": None}


def test_a_single_card_or_a_rank_table_that_cannot_be_used(launched, tmp_path):
    path = tmp_path / "hccl.json"
    for variables in ({"RANK_ID": "0", "RANK_SIZE": "1", "ASCEND_DEVICE_ID": "5"}, {}):
        launched(RANK_TABLE_FILE=str(path), **variables)
        assert isinstance(join_processes(), SingleProcess) and "RANK_TABLE_FILE" not in os.environ
    whole = json.dumps(TABLES["1.0"][0])
    for text, variables in ((None, {}), ("no JSON", {}), ("[]", {}), ('{"server_list": [{"device": []}, {}]}', {}),
                            (whole, {"RANK_ID": "x"}), (whole, {"RANK_SIZE": ""})):
        if text:
            path.write_text(text)
        launched(RANK_TABLE_FILE=str(path), **{"RANK_ID": "0", "RANK_SIZE": "4", "ASCEND_DEVICE_ID": "0", **variables})
        with pytest.raises(UserError, match=rf"^the rank table {path} .* start the processes with msrun, see docs/devices.md\.$"):
            join_processes()


@pytest.mark.parametrize(("device_target", "given", "expected"), [
    ("CPU", None, "15"), ("CPU", "60", "60"), ("Ascend", None, None)])
def test_only_processes_on_a_cpu_give_up_on_a_killed_one_after_15_s(launched, monkeypatch, device_target, given, expected):
    """On Ascend, the same variable limits how long the ranks wait for HCCL's id."""
    launched(MS_ROLE="MS_SCHED", MS_WORKER_NUM="2", **{"MS_NODE_TIMEOUT": given} if given else {})
    set_environment()
    found = []
    monkeypatch.setattr(communication, "init", lambda: found.append(os.environ.get("MS_NODE_TIMEOUT")))
    with pytest.raises(SystemExit):
        join_processes().connect(device_target)
    assert found == [expected]


@pytest.mark.parametrize(("host", "port", "reason"), [
    ("127.0.0.1", "used", "Address already in use"), ("127.0.0.1", "70000", "port must be 0-65535"),
    ("127.0.0.1", "8118-8120", "invalid literal"), ("192.0.2.1", "0", "Cannot assign requested address")])
def test_an_address_at_which_rank_0_cannot_listen(launched, monkeypatch, host, port, reason):
    for name in ("init", "get_rank", "get_group_size", "get_local_rank", "get_local_rank_size"):
        monkeypatch.setattr(communication, name, lambda: 0)
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = str(used.getsockname()[1]) if port == "used" else port
        launched(MS_ROLE="MS_WORKER", MS_NODE_ID="0", MS_WORKER_NUM="2", MS_SCHED_HOST=host, FASTER_RCNN_PORT=port)
        with pytest.raises(UserError, match=rf"^rank 0 cannot listen at {host}, port {port} \(.*{reason}.*\): give "):
            join_processes().connect("CPU")
