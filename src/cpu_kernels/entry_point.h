// What the entry points of the kernels have in common. MindSpore calls each with its inputs, then its outputs, and the shape of
// each of these. It runs on thread_count() threads, with the same result on any number of them, and returns 0, or 1 after an
// error, such as lack of memory.
#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>

inline float* floats(void* tensor) { return static_cast<float*>(tensor); }
inline int32_t* ints(void* tensor) { return static_cast<int32_t*>(tensor); }
inline bool* bools(void* tensor) { return static_cast<bool*>(tensor); }

// The status of an entry point that runs `body`: MindSpore, which is not to see an exception, reports any but 0 as an error.
template <class Body>
int status_of(const char* name, const Body& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "the CPU kernel %s failed: %s\n", name, error.what());
    return 1;
  }
}
