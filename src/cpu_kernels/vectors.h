// Vectors of floats, which the compiler maps to registers, and memory for them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

// Loads and stores at any address, aligned or not.
template <class Vec>
inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class Vec>
inline void store(float* p, const Vec& v) {
  std::memcpy(p, &v, sizeof v);
}

// Memory aligned to a cache line.
typedef std::shared_ptr<void> Buffer;
inline Buffer allocate(size_t bytes) {
  void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (data == nullptr) throw std::bad_alloc();
  return Buffer(data, std::free);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
