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
constexpr int64_t kPiece = 64;    // kept boxes between two checks of the result
constexpr float kSmallestUnion = 1e-12f;
constexpr float kSmallestBest = 1e-12f;  // a ground-truth box without overlap has no best candidate

struct Box {
  float x1, y1, x2, y2;
  float area() const { return std::max(x2 - x1, 0.f) * std::max(y2 - y1, 0.f); }
};

// Boxes, one array per coordinate, so that the compiler vectorises the loops over them.
template <int64_t size>
struct Boxes {
  float x1[size], y1[size], x2[size], y2[size], area[size];

  void set(int64_t i, const Box& box, float box_area) {
    x1[i] = box.x1, y1[i] = box.y1, x2[i] = box.x2, y2[i] = box.y2, area[i] = box_area;
  }

  float intersection(int64_t i, const Box& box) const {
    const float width = std::max(std::min(x2[i], box.x2) - std::max(x1[i], box.x1), 0.f);
    const float height = std::max(std::min(y2[i], box.y2) - std::max(y1[i], box.y1), 0.f);
    return width * height;
  }
};

// Calls body(g, IoU of each candidate with box g) for the boxes (G) that the mask (G) contains.
template <class Body>
void compare(const Box* candidates, int64_t count, const Box* boxes, const bool* mask, int64_t G, const Body& body) {
  Boxes<kChunk> chunk;
  float iou[kChunk];
  for (int64_t i = 0; i < count; ++i) chunk.set(i, candidates[i], candidates[i].area());
  for (int64_t g = 0; g < G; ++g) {
    if (!mask[g]) continue;
    const float area = boxes[g].area();
    for (int64_t i = 0; i < count; ++i) {
      const float intersection = chunk.intersection(i, boxes[g]);
      iou[i] = intersection / std::max(chunk.area[i] + area - intersection, kSmallestUnion);
    }
    body(g, iou);
  }
}

// One image: candidates (N, 4), boxes (G, 4), mask (G) -> overlap, index, is_best (N).
void match_image(const Box* candidates, const Box* boxes, const bool* mask, int64_t N, int64_t G, float* overlap,
                 int32_t* index, bool* is_best) {
  const int64_t chunks = ceil_div(N, kChunk);
  std::vector<float> best(chunks * G, 0.f);  // per chunk and box; later the first row is the maximum of all chunks
  Crew::run([&](Crew& crew) {
    crew.share_range(N, kChunk, [&](int64_t first, int64_t end) {
      std::fill(overlap + first, overlap + end, 0.f);
      std::fill(index + first, index + end, 0);
      std::fill(is_best + first, is_best + end, false);
      compare(candidates + first, end - first, boxes, mask, G, [&](int64_t g, const float* iou) {
        float largest = 0.f;
        for (int64_t i = first; i < end; ++i) {
          const bool better = iou[i - first] > overlap[i];
          overlap[i] = better ? iou[i - first] : overlap[i];
          index[i] = better ? static_cast<int32_t>(g) : index[i];
          largest = std::max(largest, iou[i - first]);
        }
        best[first / kChunk * G + g] = largest;
      });
    });
    for (int64_t c = 1; c < chunks; ++c) {
      for (int64_t g = 0; g < G; ++g) best[g] = std::max(best[g], best[c * G + g]);
    }
    crew.share_range(N, kChunk, [&](int64_t first, int64_t end) {
      compare(candidates + first, end - first, boxes, mask, G, [&](int64_t g, const float* iou) {
        const float least = std::max(best[g], kSmallestBest);
        for (int64_t i = first; i < end; ++i) is_best[i] |= iou[i - first] >= least;
      });
    });
  });
}

// Returns whether the IoU of a box with one of the first `count` kept boxes is above the threshold.
bool overlaps(const std::vector<Boxes<kPiece>>& kept, int64_t count, const Box& box, float area, float threshold) {
  for (auto piece = kept.begin(); count > 0; ++piece, count -= kPiece) {
    int found = 0;
    for (int64_t i = 0; i < std::min(kPiece, count); ++i) {
      const float intersection = piece->intersection(i, box);
      found |= intersection / (piece->area[i] + area - intersection) > threshold;
    }
    if (found) return true;
  }
  return false;
}

void suppress(const Box* boxes, int64_t count, float threshold, bool* keep) {
  std::vector<Boxes<kPiece>> kept(ceil_div(count, kPiece));
  int64_t number = 0;  // of kept boxes
  for (int64_t i = 0; i < count; ++i) {
    const float area = (boxes[i].x2 - boxes[i].x1) * (boxes[i].y2 - boxes[i].y1);
    keep[i] = !overlaps(kept, number, boxes[i], area, threshold);
    if (!keep[i]) continue;
    kept[number / kPiece].set(number % kPiece, boxes[i], area);
    ++number;
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
