"""The same network in other programs: exported, run in turn with this program, and compared."""
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
from pathlib import Path
from typing import Any

import numpy as np

from src.config import with_settings
from src.deploy import onnx_file
from src.deploy.agreement import agreement
from src.detector import build_detector
from src.errors import UserError
from src.models.faster_rcnn import InferenceForward

ROOT = Path(__file__).resolve().parents[2]
# How far outputs may be apart in pixels and score, and for which part of the proposals they may be further apart. Rounding to
# 8 bits changes the order of proposals, and so which of them there are: outputs are then only checked for being no nonsense.
EXACT, ROUNDED = ((0.1, 1e-3), 0.01), ((4.0, 0.05), 0.5)


def compare(names, network, cfg, predictor, batches, rounds, environment):
    """Measure inference, from images to boxes and scores before suppression by class, in this program and in peers.

    All run on the processors that this process may use, in turn: this program, the first peer, the second, and again.

    Args:
        names: of the peers, see `tools.benchmarking.peer_process`.
        network: FasterRCNN, whose weights the peers get.
        cfg: the configuration.
        predictor: Predictor of `network`.
        batches: list of `Batch` of one shape, taken in turn.
        rounds: of which the medians are taken; one before does not count.
        environment: variables of the peers' processes.

    Returns:
        Dict: threads; mix, as configured, and seconds of this program; peers, a dict by name of dicts: agreement, as of
        `src.deploy.agreement.Agreement`, version, dtype, seconds, and ratio, of this program's seconds to the peer's.

    Raises:
        UserError: a peer cannot run the network, or computes something else.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    inputs = [(batch.image.asnumpy(), batch.valid_size.asnumpy()) for batch in batches]
    own_seconds, results = [], {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = os.path.join(folder, "detector.onnx")
        write_onnx(path, network, cfg, *inputs[0])
        peers = [stack.enter_context(Peer(name, path, threads, "bf16" if cfg.mix else "fp32", environment))
                 for name in names]
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


def write_onnx(path, network, cfg, image, valid_size):
    """Write `network`, whatever it computes in and on whichever kernels, as an ONNX file, which computes in fp32."""
    plain = with_settings(cfg, {"mix": False})
    copy = build_detector(plain, network.box_head.classes.out_channels - 1, pretrained=False)
    weights = {parameter.name: parameter for parameter in network.get_parameters()}
    for parameter in copy.get_parameters():
        parameter.set_data(weights[parameter.name].value())
    onnx_file.write(path, InferenceForward(copy, plain, image.shape[1:3]), image, valid_size)


def check(peer, outputs, expected, exact):
    """The `Agreement` of a peer's outputs with those of this program.

    Raises:
        UserError: they have nothing in common, or are further apart than fp32 explains where it is `exact`.
    """
    tolerances, max_alone = EXACT if exact else ROUNDED
    result = agreement(outputs, expected, tolerances)
    if not result.holds(max_alone):
        raise UserError(f"--compare {peer.name}: it computes something else than this program, so that times cannot be compared: "
                        f"{result} (allowed: {max_alone:.0%}); leave {peer.name} out, and report it.")
    return result


class Peer:
    """Another program that runs an ONNX file, in a process of its own.

    Threads of one program that wait for work, and variables that are set for MindSpore, could slow down another in the same
    process: OpenVINO contains oneDNN as well.

    Args:
        name: of `tools.benchmarking.peer_process.LOADERS`.
        path: of the file.
        threads: for the products.
        dtype: fp32, or bf16 for products in bfloat16 where the program and the processor can.
        environment: variables of the process.

    Attributes:
        version: of the program.
        dtype: of the products.
        seconds: list, of each call.
    """

    def __init__(self, name: str, path: str, threads: int, dtype: str, environment: dict[str, str]):
        self.name, self.seconds = name, []
        command = [sys.executable, "-m", "tools.benchmarking.peer_process", name, path, str(threads), dtype]
        self.process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment)

    def __enter__(self) -> Peer:
        with self._alive():
            self.version, self.dtype = pickle.load(self.process.stdout)
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, image: np.ndarray, valid_size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (B, R, K, 4) and scores (B, R, K) of image (B, H, W, 3) uint8 and valid_size (B, 2) float32.

        Raises:
            UserError: the program has ended.
        """
        with self._alive():
            pickle.dump((image, valid_size), self.process.stdin)
            self.process.stdin.flush()
            seconds, boxes, scores = pickle.load(self.process.stdout)
        self.seconds.append(seconds)
        return boxes, scores

    @contextlib.contextmanager
    def _alive(self):
        try:
            yield
        except (EOFError, BrokenPipeError) as error:
            raise UserError(f"--compare {self.name}: its process has ended with status {self.process.wait()}, for the reason "
                            f"above; leave {self.name} out.") from error
