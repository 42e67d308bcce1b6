"""Which graphs are loaded from the cache. e2e/single/test_end_to_end_resume.py tests that they give bit-identical results."""
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from src.config import Config, with_settings
from src.errors import UserError
from src.run.compile_cache import inference_graphs, training_graphs, use_compile_cache
from tests.helpers.scripts import run_script

CANVASES = [(64, 96), (96, 64)]


def products(*words):
    """Return the products that tests/programs/scale_one.py prints for its arguments."""
    done = run_script("tests/programs/scale_one.py", *words, timeout=120)
    assert done.returncode == 0, done.stderr
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("product ")]


def test_graphs_are_taken_up_by_their_names(tmp_path):
    """A graph loaded from the cache has the factor of an earlier process; a compiled graph has the given factor."""
    assert products(tmp_path, "gradients=2", "update=3") == [2, 3]
    # The third graph was missing and is stored. A graph with another name is not stored.
    assert products(tmp_path, "gradients=11", "other=7", "update=13", "inference=5") == [2, 7, 3, 5]
    # A graph that comes before its turn is compiled.
    assert products(tmp_path, "inference=17", "gradients=11", "update=13") == [17, 2, 3]
    assert products(tmp_path, "gradients=11", "update=13", "inference=17") == [2, 3, 5]


def change_the_factor(graph, lock):
    """Change the factor from 2 to 8."""
    content = graph.read_bytes()
    assert content.count(np.float32(2).tobytes()) == 1
    graph.chmod(0o600)
    graph.write_bytes(content.replace(np.float32(2).tobytes(), np.float32(8).tobytes()))


def end_before_the_digests(graph, lock):
    lock.write_bytes(lock.read_bytes()[:40])


@pytest.mark.parametrize("damage", [change_the_factor, end_before_the_digests])
def test_damaged_graphs_are_compiled_again(tmp_path, damage):
    """The products are those without a cache, and the next process loads the new graphs."""
    assert products(tmp_path, "gradients=2", "update=3") == [2, 3]
    [graph], [lock] = tmp_path.glob("*/*/*/compile_cache_0.mindir"), tmp_path.glob("*/lock")
    damage(graph, lock)
    assert products(tmp_path, "gradients=11", "update=13")[0] == 11
    assert products(tmp_path, "gradients=17", "update=19") == [11, 13]
    assert lock.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of a folder")
def test_graphs_of_another_user_are_refused(tmp_path):
    cfg = with_settings(Config(), {"device_target": "CPU", "compile_cache": str(tmp_path)})
    use_compile_cache(cfg, inference_graphs(CANVASES), 3)
    [folder] = tmp_path.iterdir()
    os.chown(folder, 54321, -1)
    with pytest.raises(UserError, match=f"^the folder {folder} belongs to another user, or others can write to it; choose"):
        use_compile_cache(cfg, inference_graphs(CANVASES), 3)


def test_of_processes_at_once_one_compiles(tmp_path):
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda factor: products(tmp_path, f"gradients={factor}"), (2, 3, 5)))
    assert found[0] in ([2], [3], [5]) and found == found[:1] * 3


@pytest.mark.parametrize(("changes", "same"), [
    ({"data.dataset_dir": "elsewhere", "epochs": 3, "lr.milestones": [1], "infer.max_box_num": 7, "weight": "a"}, True),
    ({"bbox_head.clip_first": False}, False), ({"batch_size": 3}, False)])
def test_settings_that_shape_no_graph_share_its_folder(tmp_path, changes, same):
    cfg = with_settings(Config(), {"device_target": "CPU", "compile_cache": str(tmp_path)})
    for each in (cfg, with_settings(cfg, changes)):
        use_compile_cache(each, training_graphs(CANVASES, CANVASES), 3, 160)
    assert len(list(tmp_path.iterdir())) == (1 if same else 2)
    use_compile_cache(cfg, inference_graphs(CANVASES), 3)
    use_compile_cache(cfg, inference_graphs(CANVASES), 4)
    assert len(list(tmp_path.iterdir())) == (3 if same else 4)


def test_devices_are_refused(tmp_path):
    cfg = with_settings(Config(), {"device_target": "Ascend", "compile_cache": str(tmp_path)})
    with pytest.raises(UserError, match="^compile_cache .* works on the CPU only, and device_target is Ascend; leave"):
        use_compile_cache(cfg, inference_graphs(CANVASES), 3)
    assert list(tmp_path.iterdir()) == []
