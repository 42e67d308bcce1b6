"""What must be set before MindSpore is imported: environment variables, of which a value that the user has set stays,
processors, and garbage collection."""
import gc
import os

# A larger image is refused: decoded, a pixel takes 3 bytes, and a file of some kilobytes may claim gigabytes. OpenCV's own
# limit is eight times as high.
MAX_IMAGE_PIXELS = 2**27
DEFAULTS = {
    # 3 shows errors only: MindSpore's warnings are for its own developers.
    "GLOG_v": "3",
    # On CPUs with AVX-512, MindSpore 2.9 and 2.10 run 3x3 convolutions on oneDNN's reference kernel, 100 times slower.
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # Unreadable files are reported by name, once; OpenCV's own lines would come once an epoch and name nothing.
    "OPENCV_LOG_LEVEL": "SILENT",
    # Worker threads decode in parallel already, and OpenCV's own thread pool would deadlock in forked worker processes.
    "OPENCV_FOR_THREADS_NUM": "1",
    # A training needs no network: albumentations would ask for its newest version.
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # Devices wait so long for each other at the first exchange, before which each compiles its graphs; MindSpore's default is
    # 120 s, and graphs for Ascend take minutes.
    "HCCL_CONNECT_TIMEOUT": "600",
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_IMAGE_PIXELS),
}


def set_environment() -> None:
    """Set the variables, let Python collect garbage less often, and give this process all processors that mpirun has; call it
    before MindSpore is imported."""
    # At Python's 700, 430 collections, which find nothing, take a tenth of the time that imports take.
    gc.set_threshold(10_000)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # A user without HOME and without an entry in the list of users would get a folder called ~.
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/nonexistent"
    # mpirun may have bound this process to one processor, for which MindSpore would start one thread. `set_up_device` gives
    # each process its share later.
    if os.environ.get("OMPI_COMM_WORLD_SIZE") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
