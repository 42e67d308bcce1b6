"""eval.py on several ranks: every image once, the same results file."""
import json

import pytest


def evaluate(run, workspace, config, checkpoint, ranks):
    folder = workspace / f"eval_{ranks}"
    output = run(ranks, "eval.py", "--config", config, "--save_dir", folder, "--checkpoint_path", checkpoint)
    return output, folder / "eval"


@pytest.fixture(scope="module")
def checkpoint(trained):
    return trained[1] / "checkpoint" / "FasterRCNN_det_resnet18_epoch1_rank0.ckpt"


@pytest.fixture(scope="module")
def alone(run, workspace, config, checkpoint):
    return evaluate(run, workspace, config, checkpoint, 1)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_same_results_file(alone, run, workspace, config, checkpoint, ranks):
    output, folder = evaluate(run, workspace, config, checkpoint, ranks)
    found, expected = ((part / "bbox_results.json").read_text() for part in (folder, alone[1]))
    assert len(json.loads(expected)) > 37
    assert found == expected
    assert (folder / "metrics.json").read_text() == (alone[1] / "metrics.json").read_text()
    assert output.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all") == 1


def test_evaluation_during_training_is_that_of_eval(alone, trained):
    during, after = (json.loads((folder / "metrics.json").read_text()) for folder in (trained[1] / "eval", alone[1]))
    assert {key: value for key, value in after.items() if key not in ("checkpoint", "errors")} == during
