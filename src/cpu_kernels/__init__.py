"""C++ kernels for the CPU, and the cells that call them in place of MindSpore's operators where a compiler is installed."""
