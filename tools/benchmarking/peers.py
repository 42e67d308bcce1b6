"""Export the same network, run it in other programs in turn with this program, and compare the outputs."""
from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from src.config import Config, with_settings
from src.detector import Predictor, build_detector
from src.errors import UserError
from src.export.agreement import Agreement, agreement
from src.export.files import write_network
from src.models.faster_rcnn import FasterRCNN, InferenceForward
from src.run.distributed import ROOT

# Tolerances in pixels and score, and the share of proposals that may exceed them. Rounding to 8 bits changes the order of
# proposals and therefore which proposals are kept, so the check of rounded outputs only rules out nonsense.
EXACT, ROUNDED = ((0.1, 1e-3), 0.01), ((4.0, 0.05), 0.5)


def compare(names: list[str], network: FasterRCNN, cfg: Config, predictor: Predictor, batches: list, rounds: int,
            environment: dict[str, str]) -> dict:
    """Measure inference, from images to boxes and scores before per-class NMS, in this program and in peers, in turn.

    Args:
        names: names of the peers, see `tools.benchmarking.peer_process`.
        network: the detector of `predictor`, whose weights the peers get.
        batches: list of `Batch` of equal shapes, used in turn.
        rounds: number of rounds for the medians, after one warm-up round.
        environment: environment variables of the peers' processes.

    Returns:
        Dict with threads; mix, from cfg; seconds of this program; peers, a dict by name of dicts with agreement (fields of
        `Agreement`), version, dtype, seconds, and ratio: this program's seconds divided by the peer's.

    Raises:
        UserError: a peer cannot run the network, or its outputs disagree.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    inputs = [(batch.image.asnumpy(), batch.valid_size.asnumpy()) for batch in batches]
    own_seconds, results = [], {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = os.path.join(folder, "detector.onnx")
        write_onnx(path, network, cfg, *inputs[0])
        peers = [stack.enter_context(Peer(name, path, threads, "bf16" if cfg.mix else "fp32", environment)) for name in names]
        for batch, arrays in itertools.islice(itertools.cycle(zip(batches, inputs)), 1 + rounds):
            start = time.perf_counter()
            outputs = predictor(batch.image, batch.valid_size)
            own_seconds.append(time.perf_counter() - start)
            for peer in peers:
                peer_outputs = peer(*arrays)
                if peer.name not in results:
                    results[peer.name] = {"agreement": check(peer, peer_outputs, outputs, not cfg.mix)._asdict()}
    own = statistics.median(own_seconds[1:])
    for peer in peers:
        seconds = statistics.median(peer.seconds[1:])
        results[peer.name].update(version=peer.version, dtype=peer.dtype, seconds=seconds, ratio=own / seconds)
    return {"threads": threads, "mix": cfg.mix, "seconds": own, "peers": results}


def write_onnx(path: str, network: FasterRCNN, cfg: Config, image: np.ndarray, valid_size: np.ndarray) -> None:
    """Write `network` as an ONNX file that computes in fp32, whatever the precision and kernels of `network`."""
    plain = with_settings(cfg, {"mix": False})
    copy = build_detector(plain, network.box_head.classes.out_channels - 1, pretrained=False)
    weights = {parameter.name: parameter for parameter in network.get_parameters()}
    for parameter in copy.get_parameters():
        parameter.set_data(weights[parameter.name].value())
    write_network(path, InferenceForward(copy, plain, (image.shape[1], image.shape[2])), image, valid_size)


def check(peer: Peer, outputs: tuple, expected: tuple, exact: bool) -> Agreement:
    """Return the `Agreement` of a peer with this program, or raise a UserError if more than rounding differs (`exact`: fp32)."""
    tolerances, max_alone = EXACT if exact else ROUNDED
    result = agreement(outputs, expected, tolerances)
    if not result.holds(max_alone):
        raise UserError(f"--compare {peer.name}: it computes something else than this program, so that times cannot be compared: "
                        f"{result} (allowed: {max_alone:.0%}); leave {peer.name} out, and report it.")
    return result


class Peer:
    """Another program that runs an ONNX file, as a context manager.

    It runs in a separate process. In the same process, waiting threads of one program and variables set for MindSpore could slow
    down another program: OpenVINO also contains oneDNN.

    Args:
        name: key of `tools.benchmarking.peer_process.LOADERS`.
        path: path of the ONNX file.
        threads: number of threads.
        dtype: fp32, or bf16 for products in bfloat16 if the program and the processor support it, see the attribute `dtype`.
        environment: environment variables of the process.

    `version` is the version of the program, and `seconds` lists the duration of each call.
    """

    def __init__(self, name: str, path: str, threads: int, dtype: str, environment: dict[str, str]):
        self.name, self.seconds = name, []
        command = [sys.executable, "-m", "tools.benchmarking.peer_process", name, path, str(threads), dtype]
        self.process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment)

    def __enter__(self) -> Peer:
        self.version, self.dtype = self._answer()
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, image: np.ndarray, valid_size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (B, R, K, 4) and scores (B, R, K) for image (B, H, W, 3) uint8 and valid_size (B, 2) float32."""
        seconds, boxes, scores = self._answer((image, valid_size))
        self.seconds.append(seconds)
        return boxes, scores

    def _answer(self, question=None):
        try:
            if question:
                pickle.dump(question, self.process.stdin)
                self.process.stdin.flush()
            return pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise UserError(f"--compare {self.name}: its process has ended with status {self.process.wait()}, for the reason "
                            f"above; leave {self.name} out.") from error
