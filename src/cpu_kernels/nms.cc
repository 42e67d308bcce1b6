// Greedy non-maximum suppression of boxes in order of decreasing score.

#include <algorithm>
#include <vector>

#include "crew.h"
#include "entry_point.h"

#include "exact.h"

namespace {

struct Box {
  float x1, y1, x2, y2;
};

// The boxes kept so far, one array per coordinate, so that a vectorised loop compares a box with all of them.
struct Kept {
  std::vector<float> x1, y1, x2, y2, area;
  int64_t size = 0;

  explicit Kept(int64_t most) : x1(most), y1(most), x2(most), y2(most), area(most) {}

  void add(const Box& box, float box_area) {
    x1[size] = box.x1, y1[size] = box.y1, x2[size] = box.x2, y2[size] = box.y2, area[size] = box_area;
    ++size;
  }

  bool overlaps(const Box& box, float box_area, float threshold) const {
    constexpr int64_t kPiece = 64;  // boxes between two checks of the result
    for (int64_t first = 0; first < size; first += kPiece) {
      int found = 0;
      for (int64_t i = first; i < std::min(first + kPiece, size); ++i) {
        const float width = std::max(std::min(x2[i], box.x2) - std::max(x1[i], box.x1), 0.f);
        const float height = std::max(std::min(y2[i], box.y2) - std::max(y1[i], box.y1), 0.f);
        const float intersection = width * height;
        found |= intersection / (area[i] + box_area - intersection) > threshold;
      }
      if (found) return true;
    }
    return false;
  }
};

void suppress(const Box* boxes, int64_t count, float threshold, bool* keep) {
  Kept kept(count);
  for (int64_t i = 0; i < count; ++i) {
    const float area = (boxes[i].x2 - boxes[i].x1) * (boxes[i].y2 - boxes[i].y1);
    keep[i] = !kept.overlaps(boxes[i], area, threshold);
    if (keep[i]) kept.add(boxes[i], area);
  }
}

}  // namespace

// boxes (B, N, 4) in order of decreasing score within each group, ends of the groups (groups), threshold (1) -> keep (B, N).
extern "C" int NMS(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const Box* boxes = static_cast<Box*>(tensors[0]);
    const int32_t* ends = ints(tensors[1]);
    const float threshold = floats(tensors[2])[0];
    const int64_t B = shapes[0][0], N = shapes[0][1], groups = shapes[1][0];
    Crew::run([&](Crew& crew) {
      // The largest groups take longest, so they start first.
      crew.share(B * groups, [&](int64_t item) {
        const int64_t group = item / B, first = group == 0 ? 0 : ends[group - 1], row = item % B * N + first;
        suppress(boxes + row, ends[group] - first, threshold, bools(tensors[3]) + row);
      });
    });
  });
}
