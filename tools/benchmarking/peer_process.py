"""Runs an ONNX file in another program: the functions of a separate process, which imports no MindSpore."""
import operator
import os
import time
from typing import Any, Callable

PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}  # keys: names of their Python packages
peer: tuple[str, str, Callable] = ("", "", tuple)  # set by `load`: version, data type of the products, inference


def load(environment: dict[str, str], name: str, path: str, threads: int, dtype: str) -> None:
    """Load a file in the program `name`, with only the variables of `environment`; dtype: fp32 or bf16."""
    global peer
    os.environ.clear()
    os.environ.update(environment)
    if name == "onnxruntime":
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        peer = onnxruntime.__version__, "fp32", lambda inputs: session.run(["boxes", "scores"], inputs)
    else:
        import openvino
        types = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}
        # Without hyper-threading, OpenVINO would use at most one thread per core.
        model = openvino.Core().compile_model(path, "CPU", {
            "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads, "ENABLE_HYPER_THREADING": True,
            "INFERENCE_PRECISION_HINT": types[dtype]})
        used = model.get_property("INFERENCE_PRECISION_HINT")  # fp32 on a processor without bf16
        peer = (openvino.__version__.partition("-")[0], next(name for name, value in types.items() if value == used),
                lambda inputs: operator.itemgetter("boxes", "scores")(model(inputs)))


def run(image: Any, valid_size: Any) -> tuple:
    """Return the seconds per run, the program's version, the data type of its products (fp32 or bf16), boxes and scores."""
    start = time.perf_counter()
    boxes, scores = peer[2]({"image": image, "valid_size": valid_size})
    return time.perf_counter() - start, *peer[:2], boxes, scores
