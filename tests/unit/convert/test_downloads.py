"""src/convert/downloads.py, with a local HTTP server."""
import contextlib
import hashlib
import logging
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from eval import find_checkpoints
from src.checkpoint import read_checkpoint
from src.config import load_config, with_settings
from src.convert import downloads
from src.convert.detectors import TORCHVISION_CONFIG, TORCHVISION_V2_CONFIG, config_of
from src.convert.downloads import SOURCES, download
from src.convert.torchvision_weights import COCO_ROWS, to_torchvision
from src.detector import build_detector
from src.errors import UserError
from src.run.optional import checkpoint_path
from tests.helpers.paths import ROOT
from tests.helpers.skipping import skip_or_fail

CONTENT = np.random.default_rng(0).bytes(3_500_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every path and records the requests' ranges. Attributes change its behaviour."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.resumes, self.delay, self.moved = CONTENT, True, 0, None
        self.paths, self.ranges, self.lengths = [], [], []


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, first = self.server, int(self.headers["Range"][len("bytes="):-1])
        server.paths.append(self.path)
        if self.path.endswith("moved.pth"):
            self.send_response(302)
            self.send_header("Location", server.moved)
            return self.end_headers()
        server.ranges.append(first)
        time.sleep(server.delay)
        if first >= len(server.content):
            return self.send_error(416)
        first = first if server.resumes else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(server.content) - first))
        self.end_headers()
        # After `lengths.pop(0)` bytes, the connection breaks.
        return self.wfile.write(server.content[first:][:server.lengths.pop(0) if server.lengths else None])


    def do_CONNECT(self):
        """As a proxy, connect the client with the server that it names."""
        self.server.paths.append(self.path)
        host, port = self.path.split(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=copy, args=(there, self.connection))
            back.start()
            copy(self.connection, there)
            back.join()
        self.close_connection = True


def copy(source, target):
    """Send all that arrives at a socket to another socket."""
    with contextlib.suppress(OSError):
        while content := source.recv(2**16):
            target.sendall(content)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def serving():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(monkeypatch, tmp_path, caplog):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    with serving() as server:
        server.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
        monkeypatch.setitem(SOURCES, "test:weights", (server.url, DIGEST))
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "faster_rcnn" / "weights"


def assert_downloads(folder):
    assert download("test:weights") == str(folder / "weights.pth")
    assert (folder / "weights.pth").read_bytes() == CONTENT
    assert sorted(os.listdir(folder)) == ["weights.pth", "weights.pth.lock"]


def test_the_published_files():
    for name, (url, digest) in SOURCES.items():
        assert url.startswith("https://") and (len(digest) == 8 and url.endswith(f"-{digest}.pth") or "mindspore" in name)


def test_one_download_for_many_uses(server, folder, caplog, monkeypatch, capsys):
    monkeypatch.setattr("src.run.launch._is_terminal", lambda stream: True)
    assert_downloads(folder)
    assert_downloads(folder)
    assert server.ranges == [0] and "weights.pth: 0 megabytes" in capsys.readouterr().out
    (folder / "weights.pth").write_bytes(CONTENT[:-1])
    assert_downloads(folder)
    assert server.ranges == [0, 0] and f"removed {folder / 'weights.pth'}: its SHA-256" in caplog.text
    monkeypatch.setitem(SOURCES, "test:weights", (server.url, ""))
    assert_downloads(folder)
    assert "is not verified: its SHA-256 is not published" in caplog.text


def test_broken_connections_are_resumed(server, folder, caplog):
    """In the same call as long as data arrives, then in the next call."""
    server.lengths = [1_500_000, 1000, 0]
    with pytest.raises(UserError, match=f"cannot download {server.url} .*1999000 bytes are missing.* to {folder}/weights.pth"):
        download("test:weights")
    assert server.ranges == [0, 1_500_000, 1_501_000]
    assert "stopped after 1500000 bytes (2000000 bytes are missing)" in caplog.text
    assert_downloads(folder)
    assert server.ranges[3:] == [1_501_000]


def test_a_server_that_cannot_resume(server, folder):
    server.resumes, server.lengths = False, [1_500_000, 2_000_000]
    assert_downloads(folder)
    assert server.ranges == [0, 1_500_000, 2_000_000]


@pytest.mark.parametrize("partial", [CONTENT[:100][::-1], CONTENT, CONTENT + b"x", bytes(3_500_000)], ids=len)
def test_partial_files_of_another_version_or_with_all_bytes(server, folder, partial):
    folder.mkdir(parents=True)
    (folder / ".partial_weights.pth").write_bytes(partial)
    assert_downloads(folder)
    assert server.ranges == [len(partial)] + [0] * (partial != CONTENT)


def test_a_wrong_file_is_removed(server, folder):
    server.content = CONTENT[::-1]
    with pytest.raises(UserError, match=f"the SHA-256 of {server.url} does not begin with {DIGEST}; .* to {folder}/weights.pth"):
        download("test:weights")
    assert os.listdir(folder) == ["weights.pth.lock"] and server.ranges == [0, 0]


def test_redirects_and_proxies(server, folder, monkeypatch):
    server.moved = server.url
    monkeypatch.setitem(SOURCES, "test:weights", (server.url.replace("weights.pth", "moved.pth"), ""))
    assert download("test:weights") == str(folder / "moved.pth") and server.ranges == [0]
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setitem(SOURCES, "test:weights", ("http://elsewhere.invalid/weights.pth", DIGEST))
    download("test:weights")
    assert server.paths[-1] == "http://elsewhere.invalid/weights.pth"


def test_https_with_a_proxy_and_no_redirect_to_http(server, folder, monkeypatch, tmp_path):
    if not shutil.which("openssl"):
        skip_or_fail("openssl is not installed, which creates the server's certificate")
    keys = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", *keys], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.moved, url = server.url, f"https://localhost:{server.server_port}/"
    monkeypatch.setitem(SOURCES, "test:weights", (f"{url}moved.pth", DIGEST))
    with pytest.raises(UserError, match=f"it redirects to {server.url}, without encryption"):
        download("test:weights")
    server.moved = f"{url}weights.pth"
    with serving() as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
        download("test:weights")
    assert (folder / "moved.pth").read_bytes() == CONTENT
    assert proxy.paths == [f"localhost:{server.server_port}"] * 2 and server.paths[-1] == "/weights.pth"


@contextlib.contextmanager
def limited_files(size):
    """Writing more than `size` bytes to a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(server, folder):
    """The partial file stays."""
    expected = pytest.raises(UserError, match=f"test:weights could not be written into {folder} .*; make room on the disk")
    with limited_files(1_200_000), expected:
        download("test:weights")
    assert_downloads(folder)
    assert 1_000_000 <= server.ranges[1] <= 1_200_000


def test_two_processes_at_once(server, folder):
    server.delay = 1
    code = (f"import logging, sys; logging.basicConfig(level='INFO', stream=sys.stdout); from src.convert import downloads;"
            f"downloads.SOURCES['test:weights'] = {server.url!r}, {DIGEST!r}; downloads.download('test:weights')")
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and server.ranges == [0]
    assert sum("waiting for another process" in output for output in outputs) == 1
    assert_downloads(folder)


def test_refusals(server, folder, monkeypatch):
    with pytest.raises(UserError, match="no weights 'resnet'; choose one of torchvision:fasterrcnn_resnet50_fpn, "):
        download("resnet")
    monkeypatch.setattr(downloads, "MAX_SIZE", 3_400_000)
    with pytest.raises(UserError, match="has more than 3400000 bytes"):
        download("test:weights")
    assert os.path.getsize(folder / ".partial_weights.pth") == 0
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    server.delay = 1
    with pytest.raises(UserError, match=f"cannot download {server.url} .*timed out"):
        download("test:weights")
    monkeypatch.setitem(SOURCES, "test:weights", (server.url.replace(str(server.server_port), "9"), DIGEST))
    with pytest.raises(UserError, match=f"cannot download .*refused.*; check the network .* to {folder}/weights.pth"):
        download("test:weights")
    for proxy in ("http://.:80", "http://a b:3", "socks5://127.0.0.1:9", "http://127.0.0.1:abc"):
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(UserError, match=f"cannot download .*; check the network and the proxy .* to {folder}/weights.pth"):
            download("test:weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    with pytest.raises(UserError, match="cannot create the folder /dev/null/faster_rcnn/weights .*set XDG_CACHE_HOME"):
        download("test:weights")


@pytest.mark.parametrize(("config", "norm", "bn_eps"), [(TORCHVISION_CONFIG, "none", 1e-12), (TORCHVISION_V2_CONFIG, "bn", 1e-5)])
def test_published_weights_are_a_checkpoint_with_coco_names(config, norm, bn_eps, server, folder, monkeypatch, tmp_path, caplog):
    """A detector of torchvision's COCO layout is converted once; its class names and the settings of its images come along."""
    cfg = with_settings(load_config(config), {"backbone.name": "det_resnet18", "backbone.pretrained": False})
    network = build_detector(cfg, COCO_ROWS - 1)
    state = to_torchvision({parameter.name: parameter.asnumpy() for parameter in network.get_parameters()})
    save_file(state, str(tmp_path / "state.safetensors"))
    server.content = (tmp_path / "state.safetensors").read_bytes()
    url = server.url.replace(".pth", ".safetensors")
    monkeypatch.setitem(SOURCES, "torchvision:test", (url, hashlib.sha256(server.content).hexdigest()[:8]))
    with limited_files(len(server.content) + 1000), pytest.raises(UserError, match="test could not be .*; make room on the disk"):
        read_checkpoint("torchvision:test")  # the file fits, its conversion does not
    first = read_checkpoint("torchvision:test")
    Path(first.path).write_bytes(Path(first.path).read_bytes()[:-100])
    read_checkpoint("torchvision:test")  # converts the file again
    again = read_checkpoint("torchvision:test")
    assert server.ranges == [0] and first.path == again.path and Path(first.path).parent == folder
    assert caplog.text.count("tensors converted") == 2
    assert first.num_classes == 80 and first.class_names[:2] == ["person", "bicycle"] and first.class_names[-1] == "toothbrush"
    # COCO's ids: 1 is person, 13 is stop sign (12 is not used), 90 is toothbrush; the background is last here, and first there.
    rows = state["roi_heads.box_predictor.cls_score.weight"]
    assert len(np.unique(rows[:, 0])) == 91
    np.testing.assert_array_equal(first.weights["box_head.classes.weight"][[0, 11, 79, 80]], rows[[1, 13, 90, 0]])
    assert first.settings["data"]["target_size"] == [[800, 1344], [1344, 800]] and first.settings["backbone"]["bn_eps"] == bn_eps
    assert first.settings["backbone"]["fpn"]["norm"] == config_of(None, first.weights, "").backbone.fpn.norm == norm
    assert find_checkpoints(checkpoint_path("torchvision:test")) == [first.path]
