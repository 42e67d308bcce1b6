"""Call graphs in the order of the arguments, FOLDER NAME=FACTOR ...: each multiplies 1 by its factor and prints the product."""
import sys

import mindspore as ms
from mindspore import Tensor, nn

from src.config.command_line import parse_train_args
from src.run.compile_cache import stored_graph, use_compile_cache


class Scale(nn.Cell):
    """Multiplies by a factor that is a constant of the graph."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def construct(self, x):
        return x * self.factor


ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE)
cfg = parse_train_args(["--device_target", "CPU", "--compile_cache", sys.argv[1]])
use_compile_cache(cfg, ["gradients", "update", "inference"], 1)
for word in sys.argv[2:]:
    name, _, factor = word.partition("=")
    with stored_graph(name):
        product = Scale(float(factor))(Tensor([1.0], ms.float32))
    print("product", float(product.asnumpy()[0]))
