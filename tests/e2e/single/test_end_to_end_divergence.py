"""A diverging run stops and leaves its last checkpoint unchanged."""
import os
import re
import shutil

from tests.helpers.run_files import assert_same_checkpoint, checkpoint, read_lines

FLAGS = ["--mix", "False", "--ms_mode", "1"]


def test_a_rate_that_is_too_high_ends_the_run_and_leaves_the_last_good_checkpoint(run, workspace, uninterrupted):
    """With the learning rate 5, the weights in epoch 2 become so large that variances of BatchNorm are infinite. With 1000, the
    loss is not finite."""
    folder = workspace / "too_high"
    os.makedirs(folder / "checkpoint")
    good = shutil.copy(checkpoint(uninterrupted, "epoch1_rank0"), folder / "checkpoint")
    flags, settings = [*FLAGS, "--resume_ckpt", good, "--lr_init"], {"status": 1, "clip_grads": False, "keep_checkpoint_max": 2}
    message = run("train.py", folder, *flags, "5", **settings, epochs=4)
    assert message.splitlines()[-1].endswith(f"start again from {good} with a smaller lr_init."), message

    message = run("train.py", folder, *flags, "1000", **settings, epochs=40)
    [line] = [line for line in message.splitlines() if line.startswith("error: ")]
    found = re.search(r"the loss is (nan|inf|-inf) at step (\d+), with learning rate 1e\+03 and the images (.*), (.*);", line)
    assert found, line
    assert int(found[2]) > 6 and all(re.search(r"/train2017/0000(0[1-9]|1[0-3])\.jpg$", found[image]) for image in (3, 4))
    assert read_lines(folder)[-1]["global_step"] == int(found[2])
    assert_same_checkpoint(good, checkpoint(uninterrupted, "epoch1_rank0"))
    output = run("train.py", folder, *flags, "0.02", epochs=2)
    assert " step 6/6 " in output and " skipped 0 " in output
