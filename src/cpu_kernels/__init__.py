"""C++ kernels for the CPU, which run in place of the plain operators where they can be compiled."""
