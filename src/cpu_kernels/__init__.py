"""C++ kernels for the CPU, and the cells that replace MindSpore's operators by them if a C++ compiler is installed."""
