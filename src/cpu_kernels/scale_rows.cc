// Each row of a matrix times a factor of its own.

#include <algorithm>

#include "kernels.h"
#include "team.h"

namespace kernels {

void scale_rows(const float* x, const float* factor, int64_t rows, int64_t columns, float* y) {
  Team::run(usable_processors(), [&](Team& team, int) {
    team.share(rows, [&](int64_t row) {
      const float* from = x + row * columns;
      std::transform(from, from + columns, y + row * columns, [&](float value) { return value * factor[row]; });
    });
  });
}

}  // namespace kernels
