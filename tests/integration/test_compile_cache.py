"""Which graphs are taken up. That a run on them has the bits of one without is tested in e2e/single/test_end_to_end_resume.py."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from src.compile_cache import inference_graphs, training_graphs, use_compile_cache
from src.config import Config, with_settings
from src.errors import UserError
from tests.helpers.scripts import run_script

CANVASES = [(64, 96), (96, 64)]


def products(*words):
    """What tests/programs/scale_one.py prints for its arguments."""
    done = run_script("tests/programs/scale_one.py", *words, timeout=120)
    assert done.returncode == 0, done.stderr
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("product ")]


def test_graphs_are_taken_up_by_their_names(tmp_path):
    """Only the factor of an earlier process tells a graph that is taken up from one that is compiled."""
    assert products(tmp_path, "gradients=2", "update=3") == [2, 3]
    # The third was missing and is stored; a graph of another name is not.
    assert products(tmp_path, "gradients=11", "other=7", "update=13", "inference=5") == [2, 7, 3, 5]
    # Before its turn it is compiled.
    assert products(tmp_path, "inference=17", "gradients=11", "update=13") == [17, 2, 3]
    assert products(tmp_path, "gradients=11", "update=13", "inference=17") == [2, 3, 5]


def test_of_processes_at_once_one_compiles(tmp_path):
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda factor: products(tmp_path, f"gradients={factor}"), (2, 3, 5)))
    assert found[0] in ([2], [3], [5]) and found == found[:1] * 3


@pytest.mark.parametrize(("changes", "same"), [
    ({"data.dataset_dir": "elsewhere", "epochs": 3, "lr.milestones": [1], "infer.max_box_num": 7, "seed": 5}, True),
    ({"font": "a.ttf"}, True),
    ({"bbox_head.clip_first": False}, False),
    ({"data.target_size": [64, 64]}, False), ({"batch_size": 3}, False), ({"clip_grads": 5.0}, False)])
def test_settings_that_shape_no_graph_share_its_folder(tmp_path, changes, same):
    cfg = with_settings(Config(), {"device_target": "CPU", "compile_cache": str(tmp_path)})
    for each in (cfg, with_settings(cfg, changes)):
        use_compile_cache(each, training_graphs(CANVASES, CANVASES), 3, 160)
    assert len(list(tmp_path.iterdir())) == (1 if same else 2)
    use_compile_cache(cfg, inference_graphs(CANVASES), 3)
    use_compile_cache(cfg, inference_graphs(CANVASES), 4)
    assert len(list(tmp_path.iterdir())) == (3 if same else 4)


@pytest.mark.parametrize("device_target", ["Ascend", "GPU"])
def test_devices_are_refused(tmp_path, device_target):
    cfg = with_settings(Config(), {"device_target": device_target, "compile_cache": str(tmp_path)})
    with pytest.raises(UserError, match=f"^compile_cache .* works on the CPU only, and device_target is {device_target}; leave"):
        use_compile_cache(cfg, inference_graphs(CANVASES), 3)
    assert list(tmp_path.iterdir()) == []
    use_compile_cache(with_settings(cfg, {"compile_cache": ""}), inference_graphs(CANVASES), 3)
