"""The guides of docs/extending.md, applied to a copy of the project: their commands run, and the code has the effect."""
import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers.markdown import FENCED
from tests.helpers.paths import ROOT
from tests.helpers.run_files import read_lines
from tests.helpers.scripts import USER_ENVIRONMENT

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
GUIDES = {title: FENCED.findall(text) for title, text in re.findall(r"^## (.*)\n((?:(?!^## ).*\n)+)", TEXT, re.MULTILINE)}
# Programs that check the effect of a guide.
EFFECTS = {
    "An augmentation": """
import cv2, numpy as np
from src.dataset.resize import Sample
from src.dataset.transforms import AUGMENTATIONS
image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
for prob, grey in ((0, image), (1, (image * [0.299, 0.587, 0.114]).sum(-1, keepdims=True).repeat(3, -1))):
    found = AUGMENTATIONS["RandomGrey"](Sample(image, None, None), np.random.default_rng(0), prob)
    assert np.abs(found.image - grey).max() <= 0.51 * prob
drawn = cv2.imread("output/browse.jpg").astype(int)
assert np.median(np.ptp(drawn, axis=-1)) == 0""",
    "A backbone": """
from src.checkpoint import read_checkpoint
shape = read_checkpoint("output/checkpoint/FasterRCNN_separable_small_epoch1_rank0.ckpt").weights[
    "backbone.stages.stage4.pointwise.weight"].shape
assert shape == (512, 256, 1, 1)""",
    "A loss": """
import mindspore as ms, numpy as np
from src.models.boxes import giou_loss_sum
boxes = np.float32([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0]])
targets = np.float32([[0, 0, 2, 2], [1, 0, 3, 2], [3, 0, 4, 1], [0, 0, 0, 0]])
for row, expected in enumerate((0, 1 - 1 / 3, 1 + 1 / 2, 1)):  # equal, half covered, hull of 4 with a union of 2, empty
    loss, gradient = ms.value_and_grad(giou_loss_sum)(*map(ms.Tensor, (boxes, targets, np.float32(np.arange(4) == row))))
    assert abs(loss.asnumpy() - expected) < 1e-5 and np.isfinite(gradient.asnumpy()).all()""",
}


def apply(folder, kind, block):
    """Apply a code block to the copy of the project: new code at its place, or the replacements of a diff."""
    first, _, code = block.partition("\n")
    if kind == "python":
        place, name, _, marker = re.fullmatch(r"# (in|at the end of|a new file) (\S+?)(, before \"(.*)\")?", first).groups()
        text = (folder / name).read_text() if place != "a new file" else ""
        at = text.index(marker) if marker else len(text)
        (folder / name).write_text(f"{text[:at]}{code}\n{text[at:]}")
    elif kind == "diff":
        path = folder / first.removeprefix("--- ")
        text = path.read_text()
        for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*(?:\n|\Z))+)", code, re.MULTILINE):
            old, new = (re.sub("^.", "", lines, flags=re.MULTILINE).rstrip("\n") for lines in (old, new))
            assert text.count(f"{old}\n") == 1, old
            text = text.replace(old, new)
        path.write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("title", GUIDES)
def test_guide(tmp_path, title):
    for name in ("src", "tools", "config", "deploy", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=USER_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=300)
        assert done.returncode == 0, (command, done.stdout[-3000:] + done.stderr[-3000:])

    for kind, block in GUIDES[title]:
        apply(tmp_path, kind, block)
    for command in "\n".join(block for kind, block in GUIDES[title] if kind == "bash").splitlines():
        run("bash", "-c", command)
    losses = [line["loss"] for line in read_lines(tmp_path / "output")]
    assert len(losses) == 2 and max(losses) < 10
    run(sys.executable, "-c", EFFECTS[title])
