// Each row of a matrix times a factor of its own.

#include <algorithm>

#include "entry_point.h"
#include "team.h"

// weight (K, ...), scale (K) -> as weight.
extern "C" int ScaleRows(int, void** tensors, int* ranks, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const float *x = floats(tensors[0]), *factor = floats(tensors[1]);
    float* y = floats(tensors[2]);
    int64_t columns = 1;
    for (int i = 1; i < ranks[0]; ++i) columns *= shapes[0][i];
    share_among_all(shapes[0][0], [&](int64_t row) {
      const float* from = x + row * columns;
      std::transform(from, from + columns, y + row * columns, [&](float value) { return value * factor[row]; });
    });
  });
}
