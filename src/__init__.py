"""Faster R-CNN with a feature pyramid on MindSpore.

MindSpore reads these variables while it is imported, so they are set here, before any module of this package imports it;
a value that the user has set is never replaced.
"""
import os

# 3 shows errors only: MindSpore's internal warnings are for its own developers.
os.environ.setdefault("GLOG_v", "3")
# On CPUs with AVX-512, MindSpore 2.9 and 2.10 run 3x3 convolutions on oneDNN's reference kernel, 100 times slower.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
# mpirun may have bound this process to one processor, of which MindSpore would start one thread: it gets those of mpirun
# itself until src/device.py gives it its share.
if os.environ.get("OMPI_COMM_WORLD_SIZE") and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
