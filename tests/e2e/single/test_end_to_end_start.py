"""How training starts: in PyNative mode, from weights alone, with an unreadable image."""
import mindspore as ms
import numpy as np
import pytest

from tests.helpers.run_files import checkpoint, contents, read_lines


def test_an_unreadable_training_image_is_named_once_and_counted(straight, data_folder):
    _, output = straight
    assert output.count(f"{data_folder / 'train2017' / '000005.jpg'} the file is truncated") == output.count("000005.jpg") == 1
    assert output.count("1 of 13 training images could not be read and were skipped") == 1


def test_pynative_mode_has_the_losses_of_graph_mode(workspace, run):
    """In fp32, with a seed for which rounding does not change the order of proposals or the sampled RoIs. The rate increases."""
    starts = []
    for mode in ("0", "1"):
        folder = workspace / f"mode_{mode}"
        run("train.py", folder, "--ms_mode", mode, "--mix", "False", "--seed", "1", epochs=1)
        starts.append(read_lines(folder)[:4])
    for graph, pynative in zip(*starts):
        assert pynative == pytest.approx(graph, rel=1e-4)


def test_weights_alone_start_a_new_run(workspace, run, straight):
    """One step in fp32 with all images and a tiny learning rate. The configuration names a backbone weights file that does not
    exist: the checkpoint contains these weights."""
    trained = {name: data for name, data in contents(checkpoint(straight[0], "epoch4_rank0")).items()
               if data.ndim and not name.startswith("moments.")}
    path, folder = workspace / "weights.ckpt", workspace / "from_weights"
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(data)} for name, data in trained.items()], str(path))
    output = run("train.py", folder, "--ms_mode", "1", "--mix", "False", "--batch_size", "13", "--lr_init", "1e-12",
                 "--resume_ckpt", path, epochs=1, ms_loss_scaler="none", backbone__pretrained="gone.ckpt")
    assert f"training starts at step 0 from the weights of {path}" in output
    [line] = read_lines(folder)
    assert line["global_step"] == 1 and line["skipped_steps"] == 0 and line["loss_scale"] == 1
    stored = contents(checkpoint(folder, "epoch1_rank0"))
    for name, data in trained.items():
        if not name.endswith(("moving_mean", "moving_variance")):  # which change in every step
            np.testing.assert_allclose(stored[name], data, rtol=0, atol=1e-8, err_msg=name)
