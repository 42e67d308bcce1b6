// Code that all entry points share. MindSpore calls an entry point with its inputs and outputs, and with the shape of each. The
// entry point runs on thread_count() threads; the result does not depend on that number. It returns 0, or 1 after an error,
// such as lack of memory.
#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>

inline float* floats(void* tensor) { return static_cast<float*>(tensor); }
inline int32_t* ints(void* tensor) { return static_cast<int32_t*>(tensor); }
inline bool* bools(void* tensor) { return static_cast<bool*>(tensor); }

// Runs `body` and returns the status of the entry point. No exception may reach MindSpore, which reports a status other than 0.
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
