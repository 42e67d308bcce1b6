"""The scripts accept complete command lines of the older implementation, with its spelling."""
import yaml

from tests.e2e.single.conftest import SHAPES, tiny_settings
from tests.helpers.older_implementation.flags import FLAGS
from tests.helpers.run_files import checkpoint, read_json
from tests.helpers.scripts import run_script


def run_older(script, folder, config, **values):
    """Run a script with all of its older flags and return its log.

    Args:
            folder: results folder.
        config: path of the YAML file.
            values: replacements for values in `FLAGS` that name missing devices or files.
    """
    values = {"device_target": "CPU", "ms_mode": "0", "save_dir": folder, "enable_modelarts": "False", "data_url": "",
              "ckpt_url": "", "train_url": "", **values}
    words = [word for flag, (text, _, _) in FLAGS[script].items() for word in (flag, values.get(flag[2:], text))]
    done = run_script(script, "--config", config, *words, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_evaluation_and_detection(workspace, data_folder):
    config, folder = workspace / "older.yml", workspace / "older_commands"
    config.write_text(yaml.safe_dump({**tiny_settings(data_folder), "epochs": 1}))
    output = run_older("train.py", folder, config, resume_ckpt="", run_eval="False", run_profilor="False")
    assert output.count(" is ignored: ") == output.count("WARNING --eval_parallel is ignored: all processes share") == 1
    path = checkpoint(folder, "epoch1_rank0")
    output = run_older("eval.py", folder, config, ckpt_path=path)
    assert output.count(" is ignored: ") == 2 and "WARNING --run_profilor is ignored: only train.py can be profiled" in output
    assert read_json(folder, "eval", "metrics.json")["images"] == SHAPES["val_images"]
    output = run_older("infer.py", folder / "drawn", config, ckpt_path=path, imgs=data_folder / "val2017")
    assert " is ignored: " not in output
    assert len(read_json(folder / "drawn", "detections.json")) == SHAPES["val_images"]
