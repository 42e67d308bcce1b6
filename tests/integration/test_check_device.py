"""tools/check_device.py: cheap parts for real, in processes of their own."""
from tests.helpers.scripts import run_script


def test_parts_on_the_cpu(tmp_path):
    words = ["tools/check_device.py", "--device_target", "CPU", "--only", "preprocess,rpn_loss,roi_loss", "--save_dir", tmp_path]
    done = run_script(*words, timeout=280)
    report = (tmp_path / "report.md").read_text()
    assert done.returncode == 0, report
    assert "\n4 OK.\n" in report and "| device | OK |  |  |  |  | 1 x CPU |" in report
    assert all(f"\n| {part} | OK | " in report for part in ("preprocess", "rpn_loss", "roi_loss"))
