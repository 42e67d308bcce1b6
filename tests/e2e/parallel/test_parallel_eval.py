"""eval.py on several ranks: every image once, the same results file."""
import json


def test_the_same_results_file(alone, evaluate):
    """Three ranks do not divide the 7 images evenly."""
    output, folder = evaluate(3)
    found, expected = ((part / "bbox_results.json").read_text() for part in (folder, alone[1]))
    assert len(json.loads(expected)) > 7
    assert found == expected
    assert (folder / "metrics.json").read_text() == (alone[1] / "metrics.json").read_text()
    assert output.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all") == 1


def test_evaluation_during_training_is_that_of_eval(alone, trained):
    during, after = (json.loads((folder / "metrics.json").read_text()) for folder in (trained[1] / "eval", alone[1]))
    assert {key: value for key, value in after.items() if key not in ("checkpoint", "errors")} == during
