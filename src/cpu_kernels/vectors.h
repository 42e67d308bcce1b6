// Vectors of floats, which the compiler maps to the machine's registers.
#pragma once

#include <cstdint>
#include <cstring>

// From and to any address, whatever its alignment.
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

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
