// Match finds, for each candidate box (an anchor or a proposal), the ground-truth box with the largest overlap. NMS is greedy
// non-maximum suppression of boxes in order of decreasing score.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "crew.h"
#include "entry_point.h"

// No fused multiply-add below, so that each operation rounds like in the plain operators. Results are bit-identical to theirs,
// including thresholds and ties.
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

namespace {

constexpr int64_t kChunk = 1024;  // candidates per work item of a thread
constexpr float kSmallestUnion = 1e-12f;
constexpr float kSmallestBest = 1e-12f;  // a ground-truth box without overlap has no best candidate

struct Box {
  float x1, y1, x2, y2;
  float area() const { return std::max(x2 - x1, 0.f) * std::max(y2 - y1, 0.f); }
};

// A chunk of candidates, one array per coordinate, so that the compiler vectorises the loops over it.
struct Chunk {
  int64_t size;
  float x1[kChunk], y1[kChunk], x2[kChunk], y2[kChunk], area[kChunk], iou[kChunk];

  void load(const Box* boxes, int64_t count) {
    size = count;
    for (int64_t i = 0; i < size; ++i) {
      x1[i] = boxes[i].x1, y1[i] = boxes[i].y1, x2[i] = boxes[i].x2, y2[i] = boxes[i].y2;
      area[i] = boxes[i].area();
    }
  }

  void overlap_with(const Box& box) {
    const float box_area = box.area();
    for (int64_t i = 0; i < size; ++i) {
      const float width = std::max(std::min(x2[i], box.x2) - std::max(x1[i], box.x1), 0.f);
      const float height = std::max(std::min(y2[i], box.y2) - std::max(y1[i], box.y1), 0.f);
      const float intersection = width * height;
      iou[i] = intersection / std::max(area[i] + box_area - intersection, kSmallestUnion);
    }
  }
};

// One image: candidates (N, 4), boxes (G, 4), mask (G) -> overlap, index, is_best (N).
void match_image(const Box* candidates, const Box* boxes, const bool* mask, int64_t N, int64_t G, float* overlap,
                 int32_t* index, bool* is_best) {
  const int64_t chunks = ceil_div(N, kChunk);
  std::vector<float> best(chunks * G, 0.f);  // per chunk and box; later the first row is the maximum of all chunks
  Crew::run([&](Crew& crew) {
    crew.share(chunks, [&](int64_t c) {
      const int64_t first = c * kChunk;
      Chunk chunk;
      chunk.load(candidates + first, std::min(kChunk, N - first));
      std::fill_n(overlap + first, chunk.size, 0.f);
      std::fill_n(index + first, chunk.size, 0);
      std::fill_n(is_best + first, chunk.size, false);
      for (int64_t g = 0; g < G; ++g) {
        if (!mask[g]) continue;
        chunk.overlap_with(boxes[g]);
        float largest = 0.f;
        for (int64_t i = 0; i < chunk.size; ++i) {
          const bool better = chunk.iou[i] > overlap[first + i];
          overlap[first + i] = better ? chunk.iou[i] : overlap[first + i];
          index[first + i] = better ? static_cast<int32_t>(g) : index[first + i];
          largest = std::max(largest, chunk.iou[i]);
        }
        best[c * G + g] = largest;
      }
    });
    for (int64_t c = 1; c < chunks; ++c) {
      for (int64_t g = 0; g < G; ++g) best[g] = std::max(best[g], best[c * G + g]);
    }
    crew.share(chunks, [&](int64_t c) {
      const int64_t first = c * kChunk;
      Chunk chunk;
      chunk.load(candidates + first, std::min(kChunk, N - first));
      for (int64_t g = 0; g < G; ++g) {
        if (!mask[g]) continue;
        chunk.overlap_with(boxes[g]);
        const float least = std::max(best[g], kSmallestBest);
        for (int64_t i = 0; i < chunk.size; ++i) is_best[first + i] |= chunk.iou[i] >= least;
      }
    });
  });
}

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

// candidates (B or 1, N, 4), boxes (B, G, 4), mask (B, G) -> overlap, index, is_best (B, N).
extern "C" int Match(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const Box *candidates = static_cast<Box*>(tensors[0]), *boxes = static_cast<Box*>(tensors[1]);
    const int64_t B = shapes[1][0], N = shapes[0][1], G = shapes[1][1];
    for (int64_t b = 0; b < B; ++b) {
      match_image(candidates + (shapes[0][0] == 1 ? 0 : b * N), boxes + b * G, bools(tensors[2]) + b * G, N, G,
                  floats(tensors[3]) + b * N, ints(tensors[4]) + b * N, bools(tensors[5]) + b * N);
    }
  });
}

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
