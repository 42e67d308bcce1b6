"""Several processes train like one: gradients, weights, running statistics, data shards, resuming with another number of ranks.

The same holds for micro-batches. Training also stops early on all processes."""
import shutil

import numpy as np
import pytest
import yaml

from tests.helpers.paths import ONE_LEVEL, SECOND_NETWORK
from tests.helpers.run_files import assert_same_checkpoint, contents, read_json, read_lines, results
from tests.helpers.run_files import checkpoint as path_of

TWO, ONE = [[64, 96], [96, 64]], [64, 96]  # canvases


@pytest.mark.parametrize(("mode", "canvases", "steps", "runs"), [
    (0, ONE, 2, [(1, 8, 1), (2, 1, 4)]), (1, TWO, 5, [(1, 2, 1), (1, 1, 2), (2, 1, 1)])], ids=["graph", "two canvases"])
def test_gradients_and_weights_of_parts_are_those_of_one_batch(run, workspace, two_canvases, mode, canvases, steps, runs):
    """The first gradients and last weights of steps with the same images, for (processes, batch_size, accumulate_steps).

    BatchNorm is frozen and sampling is not random. An epoch of 5 steps has 4 on the wide canvas and 1 on the upright one. The two
    steps in graph mode are two epochs of 8 of the 9 images; after more steps, rounding differences would grow a hundredfold.
    """
    exact = workspace / "exact.yml"
    exact.write_text(yaml.safe_dump({
        "__BASE__": str(two_canvases), "ms_mode": mode, "backbone": {"frozen_bn": True}, "data": {"target_size": canvases},
        "rpn_head": {"rpn_label_assignment": {"use_random": False}}, "bbox_head": {"bbox_assigner": {"use_random": False}}}))
    results = []
    for ranks, batch_size, accumulate_steps in runs:
        out = workspace / f"few_steps_{ranks}_{accumulate_steps}.npz"
        run(ranks, "tests/programs/few_steps.py", exact, steps, batch_size, accumulate_steps, out)
        with np.load(out) as file:
            results.append(dict(file))
    one, *others = results
    assert sum(name.startswith("gradient") for name in one) > 40
    for parts in others:
        assert one.keys() == parts.keys()
        np.testing.assert_allclose(parts.pop("losses"), one["losses"], rtol=1e-3)
        for name, array in parts.items():
            if name.startswith("gradient"):
                assert np.linalg.norm(array - one[name]) <= 1e-5 * np.linalg.norm(one[name]), name
            else:
                np.testing.assert_allclose(array, one[name], rtol=0, atol=1e-5, err_msg=name)


def test_only_rank_0_writes_and_logs(trained):
    output, folder = trained
    assert {str(path) for path in (folder / "checkpoint").iterdir()} == {path_of(folder, "best"), path_of(folder, "epoch1_rank0")}
    assert output.count("9 training images") == output.count("epoch 1/1 step 1/2") == 1
    assert "learning rate: 0.02 for 4 images per step, scaled to 0.02 for 4 images per step" in output
    lines = read_lines(folder)
    assert [line["global_step"] for line in lines] == [1, 2]
    assert all(0 < line["all_reduce"] < 1 and 0 <= line["rank_wait"] < 1 for line in lines)
    assert read_json(folder, "eval", "metrics.json")["images"] == 7


@pytest.mark.parametrize(("ranks", "steps"), [(1, 4), (3, 1)])
def test_resuming_on_another_number_of_ranks(run, workspace, config, checkpoint, ranks, steps):
    """Nine images with batch size 2 per rank are 2 steps per epoch with two ranks, 4 with one rank and 1 with three."""
    folder = workspace / f"resumed_{ranks}"
    output = run(ranks, "train.py", "--config", config, "--save_dir", folder, "--resume_ckpt", checkpoint, "-o", "epochs=2")
    assert f"for 4 images per step, scaled to {0.02 * 2 * ranks / 4:g} for {2 * ranks} images per step" in output
    assert "resuming after epoch 1" in output and f"epoch 2/2 step {steps}/{steps}" in output
    assert contents(path_of(folder, "epoch2_rank0"))["global_step"] == 2 * steps


def test_the_same_results_file(run, workspace, config, checkpoint, trained, alone):
    """Three ranks do not divide the 7 images evenly. The evaluation during training has the same numbers."""
    folder = workspace / "eval_3"
    output = run(3, "eval.py", "--config", config, "--save_dir", folder, "--checkpoint_path", checkpoint)
    for name in ("bbox_results.json", "metrics.json"):
        assert (results(folder) / name).read_bytes() == (alone / name).read_bytes()
    assert output.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all") == 1
    during, after = (read_json(part, "metrics.json") for part in (trained[1] / "eval", alone))
    assert len(read_json(alone, "bbox_results.json")) > 7
    assert {key: value for key, value in after.items() if key not in ("checkpoint", "errors")} == during


def test_what_ranks_agree_on(run):
    output = run(2, "tests/programs/agreement.py")
    assert "rank 0 agrees" in output and "rank 1 agrees" in output


@pytest.mark.parametrize(("network", "parts"), [(ONE_LEVEL, ["backbone"]), (SECOND_NETWORK, ["backbone", "fpn", "box_head"])],
                         ids=["one level", "torchvision's second network"])
def test_a_step_inside_an_epoch_goes_on_bit_by_bit_on_as_many_ranks(run, workspace, two_canvases, network, parts):
    """Each rank has different running statistics at that step, in all parts with BatchNorm. Two canvases, augmentation, 7 wide
    images and 2 upright ones."""
    whole, resumed, config = (workspace / f"{name}_{network.stem}" for name in ("whole", "from_inside", "config"))
    config = config.with_suffix(".yml")
    config.write_text(yaml.safe_dump({"__BASE__": [str(two_canvases), str(network)]}))
    flags = ["--config", config, "--mix", "False", "-o", "epochs=2", "save_interval_steps=4"]
    run(2, "train.py", "--save_dir", whole, *flags)
    (resumed / "checkpoint").mkdir(parents=True)
    inside = shutil.copy(path_of(whole, "epoch2_step1_rank0"), resumed / "checkpoint")
    output = run(2, "train.py", "--save_dir", resumed, "--resume_ckpt", "auto", *flags)
    assert "resuming after epoch 1 and 4 images" in output and "epoch 2/2 step 1/3" not in output

    stored = contents(inside)
    others = {name: stored[name] for name in stored if name.startswith("statistics.rank1.")}
    different = {name.split(".")[2] for name in others if (others[name] != stored[name[len("statistics.rank1."):]]).any()}
    assert different == set(parts)
    assert_same_checkpoint(*(path_of(folder, "epoch2_rank0") for folder in (resumed, whole)))
    assert not any(name.startswith("statistics.") for name in contents(path_of(whole, "epoch2_rank0")))  # averaged


def test_training_ends_early_on_all_ranks_and_does_not_go_on_until_early_stop_is_raised(run, workspace, config):
    """No detection reaches the confidence threshold, so no AP is better than the 0 of the first epoch."""
    folder = workspace / "ends_early"
    for early_stop, epochs in ((1, 2), (2, 3)):
        output = run(2, "train.py", "--config", config, "--save_dir", folder, "--run_eval", "True", "--resume_ckpt", "auto",
                     "-o", "epochs=6", "eval_interval=1", "infer.conf_threshold=1", f"early_stop={early_stop}")
        [ended] = [line for line in output.splitlines() if "training ends early, after epoch " in line]
        assert f"epoch {epochs} of 6: the last {early_stop} evaluations had no better AP than the 0.0000 of epoch 1; " in ended
        assert {str(path) for path in (folder / "checkpoint").iterdir()} == {
            path_of(folder, suffix) for suffix in ("best", *(f"epoch{i + 1}_rank0" for i in range(epochs)))}
        assert read_lines(folder)[-1]["epoch"] == epochs
    best = contents(path_of(folder, "best"))
    assert (best["epoch"], best["best_epoch"], best["evals_since_best"]) == (1, 1, 0) and (folder / "curves.png").exists()
