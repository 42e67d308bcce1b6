"""A tiny detector trained by the command line for some steps, and the detections of eval.py and infer.py with it."""
import json
import shutil

import pytest
import yaml
from PIL import Image

from src.dataset.shapes import ensure_shapes
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.scripts import run_script

SHAPES = {"train_images": 8, "val_images": 4, "height": 64, "width": 64, "seed": 0}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder that is deleted with its checkpoints after the tests."""
    folder = tmp_path_factory.mktemp("inference")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shapes(workspace):
    """Folder of the data set."""
    ensure_shapes(str(workspace / "shapes"), **SHAPES)
    return workspace / "shapes"


@pytest.fixture(scope="session")
def config(workspace, shapes, compiled):
    """Path of the configuration."""
    path = workspace / "tiny.yml"
    path.write_text(yaml.safe_dump({"__BASE__": str(TINY_DETECTOR), "epochs": 1, "compile_cache": compiled,
                                    "data": {"dataset_dir": str(shapes), "draw_shapes": SHAPES}}))
    return path


@pytest.fixture(scope="session")
def run(config):
    """A function of a script, flags and the expected status that runs it to its end: (standard output, standard error)."""
    def run_to_end(script, *flags, status=0):
        done = run_script(script, "--config", config, *flags, timeout=300)
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout, done.stderr
    return run_to_end


@pytest.fixture(scope="session")
def trained(workspace, run):
    """Folder of a run of one epoch, with an evaluation at the end."""
    run("train.py", "--save_dir", workspace / "trained", "--run_eval", "True")
    return workspace / "trained"


@pytest.fixture(scope="session")
def checkpoint(trained):
    """Path of the last checkpoint of `trained`."""
    return trained / "checkpoint" / "FasterRCNN_det_resnet18_epoch1_rank0.ckpt"


@pytest.fixture(scope="session")
def images(workspace, shapes):
    """Files of many sizes and formats, one with an orientation tag."""
    folder = workspace / "images"
    (folder / "inner.jpg").mkdir(parents=True)
    image = Image.open(shapes / "val2017" / "000001.jpg")
    image.save(folder / "plain.png")
    image.convert("RGBA").save(folder / "alpha.webp")
    image.convert("L").save(folder / "grey.bmp")
    image.resize((40, 30)).save(folder / "tiny.jpg")
    image.resize((3000, 2000)).save(folder / "LARGE.JPG")
    image.resize((300, 200)).save(folder / "wide.png")
    image.resize((33, 90)).save(folder / "high.bmp")
    image.resize((1, 1)).save(folder / "plain.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side; the image must be turned to the right
    image.resize((90, 60)).save(folder / "turned.jpg", exif=exif)
    (folder / "damaged.jpg").write_bytes((folder / "tiny.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="session")
def inferred(workspace, run, checkpoint, images, shapes):
    """(results folder, detections by file name, output) without the configuration's annotations, with eval.py's threshold.

    One image is given by its path, the remaining ones by their folder.
    """
    folder = workspace / "inferred"
    output, errors = run("infer.py", "--ckpt_path", checkpoint, "--image", shapes / "val2017" / "000002.jpg", images,
                         shapes / "val2017" / "00000[134].jpg", "--save_dir", folder, "--conf_threshold", "0.01",
                         "-o", "data.dataset_dir=''")
    assert errors == ""
    entries = json.loads((folder / "detections.json").read_text())
    return folder, {entry["file"].rpartition("/")[2]: entry for entry in entries}, output
