"""Progress bars and log lines on a terminal, on a terminal without columns (mpirun), and in a pipe."""
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from tests.helpers.paths import ROOT

PROGRAM = """
import sys, time
from src.run.launch import progress_bar, set_up_logging
rank = int(sys.argv[1])
logger = set_up_logging(rank)
with progress_bar("training", "step", 40, rank, initial=10) as bar:
    kind = "disabled" if bar.disable else "drawn"
    for step in range(10, 40):
        time.sleep(0.02)
        bar.set_postfix_str(f"loss {step}", refresh=False)
        bar.update()
        if step % 10 == 9:
            logger.log(20 if rank == 0 else 40, "line %d\\nand more", step)
print(kind)
"""
COMMAND = [sys.executable, "-c", PROGRAM]


def on_terminal(columns, rank=0):
    """Return the program's output on a terminal with this number of columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    program = subprocess.Popen([*COMMAND, str(rank)], cwd=ROOT, stdin=its, stdout=its, stderr=its)
    os.close(its)
    output = b""
    with open(ours, "rb", buffering=0) as file, contextlib.suppress(OSError):  # which means that the opposite side is closed
        while part := file.read(4096):
            output += part
    assert program.wait(timeout=60) == 0, output
    return output.decode().replace("\r\n", "\n")


def in_a_pipe():
    return subprocess.run([*COMMAND, "0"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(("output", "kind"), [
    (lambda: on_terminal(100), "drawn"), (lambda: on_terminal(0), "disabled"), (lambda: on_terminal(100, 1), "disabled"),
    (in_a_pipe, "disabled")], ids=["terminal", "no columns", "rank 1", "pipe"])
def test_a_bar_is_drawn_only_by_rank_0_on_a_terminal_and_lines_are_whole(output, kind):
    texts = re.split("[\r\n]", output().rstrip("\n"))
    assert texts[-1] == kind
    lines = [text for text in texts if re.search("line|more", text)]
    assert len(lines) == 6
    for number, text in enumerate(lines):
        stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        assert re.fullmatch("and more" if number % 2 else rf"{stamp} \w+ (rank 1 )?line {10 * (number // 2) + 19}", text)
    bars = [text for text in texts if text.startswith("training:")]
    if kind == "disabled":
        assert len(texts) == 7 and not bars
    else:
        # The first bar is drawn before the first step. Later bars show steps, remaining time and loss.
        assert len(bars) > 3 and all(len(text) <= 100 for text in bars) and "10/40" in bars[0]
        assert re.search(r"(1\d|[23]\d|40)/40 \[00:0\d<00:0\d, .* steps?/s, loss \d\d\]", bars[-1])
