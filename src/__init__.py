"""Faster R-CNN with a feature pyramid on MindSpore.

MindSpore and OpenCV read these variables while they are imported, so they are set here, before any module of this package
imports them; a value that the user has set is never replaced.
"""
import os

# 3 shows errors only: MindSpore's internal warnings are for its own developers.
os.environ.setdefault("GLOG_v", "3")
# On CPUs with AVX-512, MindSpore 2.9 and 2.10 run 3x3 convolutions on oneDNN's reference kernel, 100 times slower.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
# A image of more pixels is a bad one: decoded, it takes 3 bytes a pixel, and a file of some kilobytes may claim gigabytes.
# OpenCV's own limit is eight times as high.
MAX_IMAGE_PIXELS = 2**27
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_IMAGE_PIXELS))
# mpirun may have bound this process to one processor, of which MindSpore would start one thread: it gets those of mpirun
# itself until src/device.py gives it its share.
if os.environ.get("OMPI_COMM_WORLD_SIZE") and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
