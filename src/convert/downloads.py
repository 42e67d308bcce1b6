"""Weight files that are downloaded by name, once, into a cache folder."""
from __future__ import annotations

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

from src.errors import UserError
from src.run.files import PARTIAL, lock_file, make_folder, writing_into
from src.run.launch import StopSignals, progress_bar

logger = logging.getLogger("faster_rcnn")

# Name -> (URL, first digits of the file's SHA-256, which torchvision publishes in the file's name).
SOURCES = {
    "torchvision:fasterrcnn_resnet50_fpn": (
        "https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "258fb6c6"),
    "torchvision:fasterrcnn_resnet50_fpn_v2": (
        "https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", "dd69338a"),
    "mindspore_models:faster_rcnn_resnet50_fpn": (
        "https://download-mindspore.osinfra.cn/toolkits/models/rcnn/FasterRCNN_ascend_v2_resnet50_coco2017_mAP37.0.ckpt", ""),
}
MEGABYTE = 10**6
MAX_SIZE = 1000 * MEGABYTE
TIMEOUT = 30  # seconds without data


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, *others):
        if req.full_url.startswith("https:") and not others[-1].startswith("https:"):
            raise urllib.error.URLError(f"it redirects to {others[-1]}, without encryption")
        return super().redirect_request(req, *others)


def download(name: str) -> str:
    """Return the path of a weight file of SOURCES, which is downloaded if it is not in $XDG_CACHE_HOME/faster_rcnn/weights
    (default ~/.cache/faster_rcnn/weights). If several processes need it, one of them downloads it.

    Raises:
        UserError: the name is unknown, or the file cannot be downloaded or stored, is too large, or has another SHA-256.
    """
    if name not in SOURCES:
        raise UserError(f"there are no weights {name!r}; choose one of {', '.join(SOURCES)}.")
    url, digest = SOURCES[name]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = make_folder(os.path.join(cache, "faster_rcnn", "weights"), "set XDG_CACHE_HOME to another folder")
    path = os.path.join(folder, os.path.basename(url))
    with StopSignals.idle(), writing_into(folder, name), open(f"{path}.lock", "w") as lock:
        if lock_file(lock) is False:
            logger.info("waiting for another process, which downloads %s", url)
            lock_file(lock, wait=True)
        # The second attempt follows a damaged file, or a partial file that does not belong to the server's current file.
        for _ in range(2):
            source = path if os.path.isfile(path) else _download(url, path)
            if hashlib.sha256(Path(source).read_bytes()).hexdigest().startswith(digest):
                os.replace(source, path)
                if not digest:
                    logger.warning("%s is not verified: its SHA-256 is not published; delete it to download it again", path)
                return path
            logger.warning("removed %s: its SHA-256 does not begin with %s", source, digest)
            os.remove(source)
    raise UserError(f"the SHA-256 of {url} does not begin with {digest}; download it with another program to {path}.")


def _download(url, path):
    """Download to a partial file and return its path. Broken connections and partial files of earlier calls are resumed."""
    folder, name = os.path.split(path)
    partial = os.path.join(folder, PARTIAL + name)
    logger.info("downloading %s to %s", url, folder)
    with open(partial, "ab") as file, progress_bar(name, "megabyte", 0) as bar:
        while True:
            size = file.tell()
            try:
                for position, total, content in _received(url, size):
                    file.truncate(position)  # to 0 if the server cannot resume
                    file.write(content)
                    bar.total = total // MEGABYTE
                    bar.update(file.tell() // MEGABYTE - bar.n)
                return partial
            except http.client.HTTPException as error:
                if file.tell() <= size:
                    raise UserError(f"cannot download {url} ({error}); check the network and the proxy settings, or download it "
                                    f"with another program to {path}.") from error
                logger.warning("the download stopped after %d bytes (%s) and is resumed", file.tell(), error)


def _received(url, size):
    """Yield (position, total size or 0, content) of the parts of a file from byte `size` on, or from 0 if the server cannot
    resume. Errors of the network become HTTPExceptions, unlike errors of the disk."""
    request = urllib.request.Request(url, headers={"User-Agent": "faster_rcnn", "Range": f"bytes={size}-"})
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT) as response:
            position = size if response.status == 206 else 0
            total = position + (response.length or 0)
            while content := response.read(MEGABYTE):
                if max(total, position + len(content)) > MAX_SIZE:
                    raise http.client.HTTPException(f"it has more than {MAX_SIZE} bytes")
                yield position, total, content
                position += len(content)
            if position < total:
                raise http.client.HTTPException(f"{total - position} bytes are missing")
    except (OSError, UnicodeError) as error:  # UnicodeError: an invalid name of a proxy
        if getattr(error, "code", None) != 416 or not size:  # 416: the file has only `size` bytes
            raise http.client.HTTPException(str(error)) from error
