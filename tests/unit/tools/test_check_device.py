"""tools/check_device.py: it survives what fails, and the report says what, where and with which versions."""
import math
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from tools import check_device
from tools.device_check import child as child_module
from tools.device_check import exchange, network, run_parts, trainings, versions
from tools.device_check.child import Ending, run_child
from tools.device_check.expected import largest_error, read_expected, summary, write_expected
from tools.device_check.measure import measure
from tools.device_check.outcome import Outcome
from tools.device_check.parts import PARTS, Entry, Part
from tools.device_check.report import WHERE_TO_POST, write_report

# In the place of the program that runs parts: what each does is told by its name.
CHILD = """
import json, os, signal, sys, time
device, results, *names = sys.argv[1:]
for name in names:
    print("at", name)
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang":
        time.sleep(60)
    result = "FAILED" if name in ("wrong", os.environ.get("BROKEN")) else "OK"
    with open(results, "a") as file:
        file.write(json.dumps({"name": name, "result": result, "note": device}) + "\\n")
    if result == "FAILED":
        sys.exit(1)
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """CHILD in the place of the program that runs parts."""
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    monkeypatch.setattr(network, "PROGRAM", [sys.executable, str(path)])


def run_program(text, tmp_path, **options):
    return run_child([sys.executable, "-c", text], tmp_path / "log", **{"limit": 60, **options})


@pytest.mark.parametrize(("end", "failure"), [
    ("", ""), ("sys.exit(3)", "exit status 3"), ("os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
    ("os.abort()", "ended by SIGABRT")])
def test_how_a_child_ended_is_told(tmp_path, end, failure):
    ending = run_program(f"import os, sys\nprint('its last line')\n{end}", tmp_path)
    assert ending.failure == failure and "its last line" in ending.output and ending.first_s is None


@pytest.fixture
def clock(monkeypatch):
    """[seconds]: the time for those who wait for a child, which stands still unless the test moves it."""
    seconds = [0.0]
    monkeypatch.setattr(child_module, "time", SimpleNamespace(monotonic=lambda: seconds[0], sleep=time.sleep))
    return seconds


# Appends a line to a file and waits until somebody has made the file of its number, for argv[1] lines.
WAITING = """
import pathlib, sys, time
def waits_for_ever():
    for number in range({lines}):
        with open("{folder}/lines", "a") as file:
            file.write("line\\n")
        while not pathlib.Path(f"{folder}/{{number}}").exists():
            time.sleep(0.01)
waits_for_ever()
"""


def test_a_child_that_hangs_is_ended_and_its_log_says_where(tmp_path, clock):
    def pass_the_limit():
        clock[0] += 11

    ending = run_program(WAITING.format(folder=tmp_path, lines=1), tmp_path, limit=10, watched=tmp_path / "lines",
                         grown=pass_the_limit)
    assert ending.failure == "no progress in 10 s" and "waits_for_ever" in ending.output


def test_progress_gives_a_child_more_time(tmp_path, clock):
    answers = iter(range(4))

    def answer_in_time():
        clock[0] += 9
        (tmp_path / str(next(answers))).touch()

    ending = run_program(WAITING.format(folder=tmp_path, lines=4), tmp_path, limit=10, watched=tmp_path / "lines",
                         grown=answer_in_time)
    assert not ending.failure and 0 <= ending.first_s < ending.seconds == 4 * 9


def test_parts_go_on_after_one_that_fails(tmp_path, child):
    names = ["first", "crash", "second", "wrong", "hang", "third"]
    found = []
    network.check_parts("CPU", names, tmp_path, 10, found.append)
    assert [outcome.name for outcome in found] == ["device", *names]
    assert [outcome.result for outcome in found] == ["OK", "OK", "FAILED", "OK", "FAILED", "FAILED", "OK"]
    assert [found[i].note for i in (1, 2, 5)] == ["CPU", "ended by SIGSEGV", "no progress in 10 s"]
    assert "at crash" in found[2].details and "at hang" in found[5].details


def test_without_a_device_no_part_is_tried(tmp_path, child, monkeypatch):
    monkeypatch.setenv("BROKEN", "device")
    found = []
    network.check_parts("Ascend", ["first", "second"], tmp_path, 60, found.append)
    assert [(outcome.name, outcome.result) for outcome in found] == [
        ("device", "FAILED"), ("first", "SKIPPED"), ("second", "SKIPPED")]


def test_the_report_of_a_part_that_fails(tmp_path, child, monkeypatch, run_tool):
    monkeypatch.setattr(check_device, "PARTS", ("preprocess", "crash", "fpn"))
    monkeypatch.setenv("GLOG_v", "3")
    monkeypatch.setenv("SOME_TOKEN", "a secret")
    status, output, _ = run_tool(check_device, "--device_target", "CPU", "--only", "preprocess,crash,fpn", "--save_dir",
                                 tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text()
    assert status == 1 and "3 OK, 1 FAILED (crash)." in output and "3 OK, 1 FAILED (crash)." in report
    assert "| crash | FAILED |" in report and "ended by SIGSEGV" in report and "at crash" in report
    assert "- mindspore: `2." in report and "- GLOG_v: `3`" in report and "a secret" not in report
    assert report.rstrip().endswith(WHERE_TO_POST)


def test_what_is_refused(run_tool, tmp_path):
    status, _, error = run_tool(check_device, "--only", "preprocess,head", "--save_dir", tmp_path)
    assert status == 1 and error.startswith("error: --only must be some of preprocess,backbone,")
    assert error.endswith(",exchange, not 'head'\n")
    status, _, error = run_tool(check_device, "--launched", "--save_dir", tmp_path)
    assert (status, error) == (1, "error: the processes that the launcher started do not find each other.\n")


def test_cann_and_driver_versions_are_read(tmp_path, monkeypatch):
    cann, driver, programs = tmp_path / "cann", tmp_path / "version.info", tmp_path / "bin"
    (cann / "compiler").mkdir(parents=True)
    (cann / "compiler" / "version.info").write_text("Version=8.5.0\ntimestamp=20260101\n")
    driver.write_text("Version=25.2.0\n")
    programs.mkdir()
    (programs / "npu-smi").write_text("#!/bin/sh\necho $1: 910B3\n")
    (programs / "npu-smi").chmod(0o755)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(cann))
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(cann))
    monkeypatch.setenv("PATH", str(programs))
    assert versions.read_device_files(driver) == [
        (str(cann / "compiler" / "version.info"), "Version=8.5.0\ntimestamp=20260101"), (str(driver), "Version=25.2.0"),
        ("npu-smi info", "info: 910B3")]


def test_the_report_keeps_text_of_programs_apart(tmp_path):
    outcomes = [Outcome("fpn", "DIFFERS", "output 1", "", [1.5, 2.25], [3.0, None], 0.02, 0.01),
                Outcome("rpn_head", "FAILED", "exit status 1", "some ``` text\nand more")]
    write_report(tmp_path / "report.md", "Ascend", {"Versions": [("npu-smi info", "a\nb"), ("numpy", "1.26")]}, outcomes,
                 ["fpn", "rpn_head", "r50"])
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[0] == "# Device check: Ascend"
    assert lines[2] == "0 OK, 1 FAILED (rpn_head), 1 DIFFERS (fpn), 1 not yet tried (r50)."
    assert "| fpn | DIFFERS | 1.5 / 2.2 | 3.0 | 2.0e-02 | 1.0e-02 | output 1 |" in lines
    assert lines.count("```") == 4 and "some ''' text" in lines and "- numpy: `1.26`" in lines


class Weighing(nn.Cell):
    """(a w + b c, ranks of a) of a pair a, b and an integer c."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(np.float32([2, 3, 4])), name="weight")

    def construct(self, pair, count):
        return pair[0] * self.weight + pair[1] * count, count + 1


def test_gradients_are_those_of_the_inputs_and_weights():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3)).astype(np.float32)
    measured = measure(Part(Weighing(), ((a, b), np.int32([[7]])), True, (1,)))
    assert list(measured.numbers) == ["output 0", "output 1", "gradient of input 1", "gradient of weight"]
    expected = a * np.float32([2, 3, 4]) + 7 * b
    assert np.allclose(measured.numbers["output 0"], [np.sqrt((expected**2).mean()), *expected.reshape(-1)], rtol=1e-5)
    assert measured.numbers["output 1"].tolist() == [8, 8]
    factors = measured.numbers["gradient of input 1"][1:].reshape(5, 3) / 7
    assert abs(factors).max() <= 1 and len(np.unique(factors)) == 15
    assert np.allclose(measured.numbers["gradient of weight"][1:], (factors * a).sum(0), rtol=1e-5)
    assert all(value > 0 for value in (*measured.compile_s, *measured.run_ms))


def test_the_largest_error_is_relative_to_the_tensor():
    expected = {"small": np.float32([1e-3, 2e-3]), "large": np.float32([1000, -2000])}
    assert largest_error(expected, expected) == (0, "small")
    error, name = largest_error({**expected, "small": np.float32([1e-3, 2.02e-3])}, expected)
    assert name == "small" and error == pytest.approx(0.01, rel=1e-3)
    assert largest_error({"small": expected["small"]}, expected) == (math.inf, "large")
    assert largest_error({**expected, "large": np.float32([1000, np.nan])}, expected) == (math.inf, "large")
    assert summary(np.float32([[3, -4]]), 8).tolist() == [np.float32(np.sqrt(12.5)), 3, -4]


def test_a_part_with_another_number_differs(monkeypatch):
    part = Part(Weighing(), ((np.ones((5, 3), np.float32),) * 2, np.int32([[7]])))
    monkeypatch.setitem(PARTS, "weighing", Entry(None, {}, 1e-5, 1e-2))
    stored = measure(part).numbers
    for target, change, result in (("CPU", 1.0, "OK"), ("CPU", 1.001, "DIFFERS"), ("Ascend", 1.001, "OK"),
                                   ("Ascend", 1.1, "DIFFERS")):
        changed = {**stored, "output 0": stored["output 0"] * np.float32(change)}
        monkeypatch.setattr("tools.device_check.expected.read_expected", lambda changed=changed: {"weighing": changed})
        outcome = run_parts.run_part("weighing", SimpleNamespace(device_target=target, part=lambda name: part))
        assert outcome.result == result and (not outcome.error or outcome.note == "output 0")


def test_stored_numbers_come_back(tmp_path):
    expected = {"a": {"output 0": np.float32([1, 2, 3]), "gradient of w": np.float32([4])}, "b": {"output 0": np.float32([5])}}
    write_expected(expected, tmp_path / "numbers.npz")
    found = read_expected(tmp_path / "numbers.npz")
    assert list(found) == ["a", "b"] and list(found["a"]) == ["output 0", "gradient of w"]
    assert all(np.array_equal(found[part][name], values) for part, own in expected.items() for name, values in own.items())


def test_every_part_has_stored_numbers():
    assert tuple(PARTS) == check_device.PARTS
    assert all(np.isfinite(values).all() for numbers in read_expected().values() for values in numbers.values())


def metrics(*losses, skipped=0):
    return [{"loss": loss, "skipped_steps": skipped, "images_per_second": 4.0, "data_wait": 0.25} for loss in losses]


@pytest.mark.parametrize(("lines", "result", "words"), [
    (metrics(*np.linspace(2.02, 1, 20)), "OK", "0.500 s a step, 25% of it waiting for data; 9 s from the start"),
    (metrics(*np.linspace(2, 1, 20), skipped=3), "OK", "3 steps overflowed"),
    (metrics(*np.linspace(2.2, 1, 20)), "DIFFERS", "loss 2.200, at the end 1.1"),
    (metrics(*np.linspace(2, 2.5, 20)), "DIFFERS", "at the end 2.4"),
    (metrics(2, *[math.nan] * 19), "DIFFERS", "nan"),
    (metrics(2, 1.9, 1.8), "FAILED", "ended early, after 3 of 20 steps"),
])
def test_what_a_training_says(lines, result, words):
    outcome = trainings.judge("r50", Ending("", 30.0, 9.0, "its output"), lines, 20, 2, 2.0)
    assert outcome.result == result and words in outcome.note
    assert outcome.details == ("its output" if result == "FAILED" else "")


def test_a_resumed_training_may_stand_still_but_not_diverge():
    for losses, result in ((np.linspace(1, 1.1, 10), "OK"), ([1] * 9 + [math.nan], "DIFFERS")):
        assert trainings.judge("resume", Ending("", 30.0, 9.0, ""), metrics(*losses), 10, 2, None).result == result


def test_a_training_that_crashed():
    outcome = trainings.judge("r50", Ending("ended by SIGSEGV", 30.0, 9.0, "its output"), metrics(2, 1), 20, 2, None)
    assert (outcome.result, outcome.note) == ("FAILED", "ended by SIGSEGV, after 2 of 20 steps")


@pytest.mark.parametrize(("everyone", "result", "note"), [
    ([("a", "b", 0, [1.0]), ("a", "b", 0, [2.0])], "OK", "times"),
    ([("a", "b", 0, [1.0]), ("c", "b", 0, [2.0])], "DIFFERS", "first weights differ among the ranks; times"),
    ([("a", "b", 0, [1.0]), ("a", "c", 0, [2.0])], "DIFFERS", "trained weights differ among the ranks; times"),
    ([("a", "a", 0, [1.0]), ("a", "a", 0, [2.0])], "DIFFERS", "the weights did not change; times"),
    ([("a", "b", 0, [1.0]), ("a", "b", 7, [2.0])], "DIFFERS", "wrong sums by rank: [0, 7] of 40000000; times"),
    ([("a", "b", 0, [1.0]), ("a", "b", 0, [math.inf])], "DIFFERS", "losses are not finite; times"),
])
def test_what_several_processes_say(everyone, result, note):
    outcome = exchange.judge(everyone, "times")
    assert (outcome.result, outcome.note) == (result, note)


def test_the_launcher_of_a_device(tmp_path, monkeypatch):
    for name in ("msrun", "mpirun"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(exchange.importlib.util, "find_spec", lambda name: name == "mpi4py")
    words = exchange.find_launcher("Ascend", 8, tmp_path)
    assert words[:3] == [str(tmp_path / "msrun"), "--worker_num=8", "--local_worker_num=8"]
    assert exchange.find_launcher("CPU", 2, tmp_path)[0] == str(tmp_path / "mpirun")
    monkeypatch.setattr(exchange.importlib.util, "find_spec", lambda name: None)
    assert exchange.find_launcher("CPU", 2, tmp_path)[0] == str(tmp_path / "msrun")
    monkeypatch.setattr(exchange.shutil, "which", lambda name: None)
    for name in ("msrun", "mpirun"):
        (tmp_path / name).unlink()
    assert exchange.find_launcher("Ascend", 2, tmp_path) == []
