"""How training starts: in PyNative mode, from weights alone, from other classes, with an unreadable image."""
import mindspore as ms
import numpy as np
import pytest

from tests.helpers.run_files import checkpoint, contents, read_lines

STATISTICS = ("moving_mean", "moving_variance")
CLASS_LAYERS = ["box_head.classes.bias", "box_head.classes.weight", "box_head.deltas.bias", "box_head.deltas.weight"]


def test_an_unreadable_training_image_is_named_once_and_counted(straight, data_folder):
    _, output = straight
    assert output.count(f"{data_folder / 'train2017' / '000005.jpg'} the file is truncated") == 1
    assert output.count("000005.jpg") == 1
    assert output.count("1 of 13 training images could not be read and were skipped") == 1


def test_pynative_mode_has_the_losses_of_graph_mode(workspace, run_and_kill):
    """In fp32, with a seed for which rounding does not change the order of proposals or the sampled RoIs. The rate increases."""
    starts = []
    for mode in ("0", "1"):
        folder = workspace / f"mode_{mode}"
        run_and_kill(4, "train.py", folder, "--ms_mode", mode, "--mix", "False", "--seed", "1")
        starts.append(read_lines(folder)[:4])
    for graph, pynative in zip(*starts):
        assert pynative == pytest.approx(graph, rel=1e-4)


def start(run, save_dir, *flags, **settings):
    """Train one step in fp32 with all images and a tiny learning rate; returns the output and the checkpoint.

    The configuration names a backbone weights file that does not exist: the checkpoint contains these weights.
    """
    output = run("train.py", save_dir, "--ms_mode", "1", "--mix", "False", "--batch_size", "13", "--lr_init", "1e-12",
                 *flags, epochs=1, ms_loss_scaler="none", backbone__pretrained="gone.ckpt", **settings)
    [line] = read_lines(save_dir)
    assert line["global_step"] == 1 and line["skipped_steps"] == 0 and line["loss_scale"] == 1
    assert np.isfinite(line["loss"])
    return output, contents(checkpoint(save_dir, "epoch1_rank0"))


def unequal_weights(stored, others):
    """Return the names of weights that differ. BatchNorm's statistics change in every step and are ignored."""
    return [name for name in stored if stored[name].ndim and not name.startswith("moments.")
            and not name.endswith(STATISTICS)
            and (stored[name].shape != others[name].shape or np.abs(stored[name] - others[name]).max() > 1e-8)]


def test_weights_alone_start_a_new_run(workspace, run, straight):
    trained = contents(checkpoint(straight[0], "epoch4_rank0"))
    weights = [{"name": name, "data": ms.Tensor(data)} for name, data in trained.items()
               if data.ndim and not name.startswith("moments.")]
    path = workspace / "weights.ckpt"
    ms.save_checkpoint(weights, str(path))
    output, stored = start(run, workspace / "from_weights", "--resume_ckpt", path)
    assert f"training starts at step 0 from the weights of {path}" in output
    assert unequal_weights(stored, trained) == []


def test_other_classes_start_a_new_run_without_the_layers_of_the_classes(workspace, run, three_classes, straight):
    source = checkpoint(straight[0], "epoch4_rank0")
    output, stored = start(run, workspace / "from_others", "--resume_ckpt", source,
                           data__train_anno_path=three_classes)
    assert f"training starts at step 0 from the weights of {source}" in output
    [named] = [line for line in output.splitlines() if "left at their initial values" in line]
    assert sorted(named.rsplit(": ", 1)[1].split(", ")) == CLASS_LAYERS
    assert sorted(unequal_weights(stored, contents(source))) == CLASS_LAYERS
    assert stored["box_head.classes.weight"].shape == (4, 64) and stored["box_head.deltas.weight"].shape == (12, 64)
