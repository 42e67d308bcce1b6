"""tools/check_device.py: every part runs on the CPU, in a child process."""
import pytest

from tests.helpers.scripts import run_script
from tools.check_device import PARTS


@pytest.mark.slow
@pytest.mark.timeout(930)
def test_every_part_on_the_cpu(tmp_path):
    words = ["tools/check_device.py", "--device_target", "CPU", "--only", ",".join(PARTS), "--save_dir", tmp_path]
    done = run_script(*words, timeout=900)
    report = (tmp_path / "report.md").read_text()
    assert done.returncode == 0, report
    assert f"\n{1 + len(PARTS)} OK.\n" in report and "| device | OK |  |  |  |  | 1 x CPU |" in report
    assert all(f"\n| {part} | OK | " in report for part in PARTS)
