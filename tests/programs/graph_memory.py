"""Print the memory of the temporary tensors of a training step on Ascend or GPU, computed from the graph."""
import argparse
import sys
import tempfile
from pathlib import Path

from src.run.environment import set_environment

set_environment()  # before MindSpore is imported

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402

from src.config.load import load_config  # noqa: E402
from src.detector import build_detector  # noqa: E402
from src.models.faster_rcnn import TrainingForward  # noqa: E402
from tests.helpers.exported_graphs import WithGradients, export_graph, temporary_tensors  # noqa: E402

CONFIG = "config/faster_rcnn/faster_rcnn_resnet50_fpn_1x.yml"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("boxes", type=int, help="length of the box lists")
    args = parser.parse_args()
    settings = {"device_target": "Ascend", "mix": True, "backbone.pretrained": False}
    cfg = load_config(args.config, [(key, value, "graph_memory") for key, value in settings.items()])
    ms.set_device("CPU")  # it exports graphs of other devices
    (height, width), batch, boxes = cfg.data.canvases[0], cfg.batch_size, args.boxes
    forward = TrainingForward(build_detector(cfg, 80), cfg, 80, (height, width))
    shapes = [((batch, height, width, 3), np.uint8), ((batch, 2), np.float32), ((batch, boxes, 4), np.float32),
              ((batch, boxes), np.int32), ((batch, boxes), np.bool_), ((batch, forward.num_anchors), np.float32),
              ((batch, forward.num_proposals + boxes), np.float32)]
    inputs = [ms.Tensor(np.zeros(*shape)) for shape in shapes]
    with tempfile.TemporaryDirectory() as folder:
        written, peak = temporary_tensors(export_graph(WithGradients(forward).set_train(), inputs, Path(folder)))
    sys.stdout.write(f"{batch} images of {height}x{width}, {boxes} boxes per image: the operators write "
                     f"{sum(written.values()) / 1e6:,.0f} MB, of which {peak / 1e6:,.0f} MB are needed at once\n")
    for (name, outputs), size in written.most_common(20):
        sys.stdout.write(f"{size / 1e6:9,.1f} MB  {name}  {', '.join('x'.join(map(str, shape)) for shape in outputs)}\n")
