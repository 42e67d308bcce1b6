"""Checkpoints and complete command lines of the older MindSpore implementation in the scripts."""
import numpy as np
import yaml

from tests.e2e.single.conftest import SHAPES, tiny_settings
from tests.helpers.older_implementation.flags import FLAGS
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.run_files import checkpoint, read_json, read_lines, results
from tests.helpers.scripts import run_script


def test_a_trained_detector_under_the_older_names_scores_the_same_and_is_fine_tuned(workspace, run, straight):
    path, folder = workspace / "as_older.ckpt", workspace / "from_older"
    done = run_script("tools/export_mindspore_models.py", checkpoint(straight[0], "epoch4_rank0"), path,
                      "--config", TINY_DETECTOR, timeout=300)
    assert done.returncode == 0, done.stderr
    output = run("eval.py", workspace / "as_older", "--checkpoint_path", path)
    assert output.count("is a checkpoint of the older MindSpore implementation") == 1
    (metrics, rows), expected = ([read_json(place, name) for name in ("metrics.json", "bbox_results.json")]
                                 for place in (results(workspace / "as_older"), straight[0] / "eval"))
    assert metrics.pop("checkpoint") == str(path) and metrics.pop("errors") and rows and [metrics, rows] == expected

    # The checkpoint contains the weights of the backbone, so their file is not read.
    output = run("train.py", folder, "--resume_ckpt", path, "--mix", "False", epochs=1, backbone__pretrained="gone.ckpt")
    assert f"training starts at step 0 from the weights of {path}" in output
    losses, before = ([line["loss"] for line in read_lines(place)] for place in (folder, straight[0]))
    assert len(losses) == 6 and np.mean(losses) < np.mean(before[:6])


def test_training_evaluation_and_detection(workspace, run, data_folder):
    """All older flags in each command. Some get other values than in `FLAGS`, which name missing devices or files."""
    config, folder = workspace / "older.yml", workspace / "older_commands"

    def run_older(script, folder, **values):
        values = {"device_target": "CPU", "ms_mode": "0", "save_dir": folder, "enable_modelarts": "False", "data_url": "",
                  "ckpt_url": "", "train_url": "", **values}
        words = [word for flag, (text, _, _) in FLAGS[script].items() for word in (flag, values.get(flag[2:], text))]
        return run(script, folder, "--config", config, *words)

    config.write_text(yaml.safe_dump({**tiny_settings(data_folder), "epochs": 1}))
    output = run_older("train.py", folder, resume_ckpt="", run_eval="False", run_profilor="False")
    assert output.count(" is ignored: ") == output.count("WARNING --eval_parallel is ignored: all processes share") == 1
    path = checkpoint(folder, "epoch1_rank0")
    output = run_older("eval.py", folder, ckpt_path=path)
    assert output.count(" is ignored: ") == 2 and "WARNING --run_profilor is ignored: only train.py can be profiled" in output
    assert read_json(results(folder), "metrics.json")["images"] == SHAPES["val_images"]
    output = run_older("infer.py", folder / "drawn", ckpt_path=path, imgs=data_folder / "val2017")
    assert " is ignored: " not in output
    assert len(read_json(folder / "drawn", "detections.json")) == SHAPES["val_images"]
