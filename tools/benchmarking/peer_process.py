"""Run an ONNX file in another program and process: python -m tools.benchmarking.peer_process NAME FILE THREADS DTYPE.

This module imports neither this project nor MindSpore. It first writes its version and the data type of its products. Then it
reads pickled pairs (image, valid_size) from standard input and writes (seconds, boxes, scores) for each, until the input ends.
"""
import os
import pickle
import sys
import time

PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}  # keys: names of their Python packages
FP32_ONLY = ("onnxruntime",)


def load_onnxruntime(path, threads, _):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnxruntime.__version__, "fp32", lambda inputs: session.run(["boxes", "scores"], inputs)


def load_openvino(path, threads, dtype):
    import openvino
    types = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}
    # Without hyper-threading, OpenVINO would use at most one thread per core.
    model = openvino.Core().compile_model(path, "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads, "ENABLE_HYPER_THREADING": True,
        "INFERENCE_PRECISION_HINT": types[dtype]})
    used = model.get_property("INFERENCE_PRECISION_HINT")  # fp32 on a processor without bf16
    name = next(name for name, value in types.items() if value == used)

    def run(inputs):
        outputs = model(inputs)
        return outputs["boxes"], outputs["scores"]
    return openvino.__version__.partition("-")[0], name, run


LOADERS = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}


def main(name, path, threads, dtype):
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output that a library prints must not be read as an answer

    def answer(value):
        pickle.dump(value, answers)
        answers.flush()

    version, used, run = LOADERS[name](path, int(threads), dtype)
    answer((version, used))
    while True:
        try:
            image, valid_size = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        start = time.perf_counter()
        boxes, scores = run({"image": image, "valid_size": valid_size})
        answer((time.perf_counter() - start, boxes, scores))


if __name__ == "__main__":
    main(*sys.argv[1:])
