"""Setup before MindSpore is imported: environment variables (the user's values are kept), processors, garbage collection."""
import gc
import os

# Larger images are rejected: a decoded pixel takes 3 bytes, and a file of some kilobytes may declare gigabytes. OpenCV's default
# limit is 8 times higher.
MAX_IMAGE_PIXELS = 2**27
DEFAULTS = {
    # 3 shows only errors, because MindSpore's warnings are meant for its developers.
    "GLOG_v": "3",
    # On CPUs with AVX-512, MindSpore 2.9 and 2.10 run 3x3 convolutions on oneDNN's reference kernel, 100 times slower.
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # This program reports each unreadable file once, by name. OpenCV would report it in every epoch, without the name.
    "OPENCV_LOG_LEVEL": "SILENT",
    # Worker threads already decode in parallel, and OpenCV's thread pool would deadlock in forked worker processes.
    "OPENCV_FOR_THREADS_NUM": "1",
    # Training needs no network connection, but albumentations would check for a newer version.
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # MindSpore sets this too. If another package, such as onnx, has imported protobuf before, MindSpore 2.7 to 2.9 crash.
    "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
    # Seconds that devices wait for each other at the first collective, before which each compiles its graphs: minutes on Ascend.
    "HCCL_CONNECT_TIMEOUT": "600",
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_IMAGE_PIXELS),
}
# What differs between versions of MindSpore, see docs/devices.md: the versions of CANN, and the major version of oneDNN.
VERSIONS = {"2.7": ("8.2 or 8.3", 2), "2.8": ("8.2, 8.3 or 8.5", 2), "2.9": ("8.2, 8.3, 8.5 or 9.0", 3),
            "2.10": ("8.2, 8.3, 8.5, 9.0 or 9.1", 3)}


def version_differences(mindspore: str) -> tuple[str, int]:
    """Return the versions of CANN that a version of MindSpore supports, and the major version of the oneDNN in its wheel. A
    version that is not in the table is treated like the newest one."""
    return VERSIONS.get(".".join(mindspore.split(".")[:2]), VERSIONS["2.10"])


def set_environment() -> None:
    """Set the variables, make garbage collection less frequent, and let this process use all processors that mpirun has."""
    # With Python's default of 700, imports run 430 collections that find nothing and take a tenth of the import time.
    gc.set_threshold(10_000)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # For a user without HOME and without an entry in /etc/passwd, folders called ~ would be created.
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/nonexistent"
    # mpirun may have bound this process to one processor, and MindSpore would then start only one thread. `set_up_device`
    # later binds each process to its share.
    if os.environ.get("OMPI_COMM_WORLD_SIZE") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
