// The layers of a network other than products, and their gradients. Features are float or Bf16 (B, H, W, C), channels last.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "crew.h"

namespace layers {

struct Size {
  int64_t b, c, h, w;
  int64_t rows() const { return b * h * w; }
  int64_t count() const { return rows() * c; }
};

constexpr int64_t kPiece = 1 << 15;  // elements per piece of a parallel loop
constexpr int64_t kChannels = 32;    // channels per piece, if pieces must not write to the same cells

template <class From, class To>
void cast(Crew& crew, int64_t count, const From* in, To* out) {
  crew.share_range(count, kPiece, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = from_float<To>(to_float(in[i]));
  });
}

template <class T>
void copy(Crew& crew, int64_t count, const T* in, T* out) {
  crew.share_range(count, kPiece, [&](int64_t begin, int64_t end) { std::copy(in + begin, in + end, out + begin); });
}

// One term of a gradient.
struct Part {
  const void* data;
  bool wide;  // float instead of the type of the features
};

// Sum of the parts. If `value`, the result of a ReLU, is not nullptr, the sum is 0 where `value` is 0, but not where it is NaN.
template <class T>
void sum_parts(Crew& crew, int64_t count, const std::vector<Part>& parts, const T* value, T* out) {
  crew.share_range(count, 4096, [&](int64_t begin, int64_t end) {
    float sum[4096];
    std::fill_n(sum, end - begin, -0.f);  // -0 + x is x, even if x is -0
    for (const Part& part : parts) {
      const auto add = [&](const auto* data) {
        for (int64_t i = begin; i < end; ++i) sum[i - begin] += to_float(data[i]);
      };
      if (part.wide) add(static_cast<const float*>(part.data));
      else add(static_cast<const T*>(part.data));
    }
    if (value != nullptr) {
      for (int64_t i = begin; i < end; ++i) sum[i - begin] = to_float(value[i]) <= 0 ? 0.f : sum[i - begin];
    }
    for (int64_t i = begin; i < end; ++i) out[i] = from_float<T>(sum[i - begin]);
  });
}

// Sums of the columns of x (rows, columns).
template <class T>
void column_sums(Crew& crew, int64_t rows, int64_t columns, const T* x, float* out) {
  constexpr int64_t kRows = 512;
  const int64_t pieces = ceil_div(rows, kRows);
  std::vector<float> partial(pieces * columns, 0.f);
  crew.share_range(rows, kRows, [&](int64_t begin, int64_t end) {
    float* sum = partial.data() + begin / kRows * columns;
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < columns; ++c) sum[c] += to_float(x[r * columns + c]);
    }
  });
  std::fill_n(out, columns, 0.f);
  for (int64_t p = 0; p < pieces; ++p) {
    for (int64_t c = 0; c < columns; ++c) out[c] += partial[p * columns + c];
  }
}

// Mean and biased variance of the columns of x (rows, columns). Each piece stays in the cache for two passes; the results of the
// pieces are then combined (Chan, Golub and LeVeque, 1983).
struct Moments {
  std::vector<float> mean, variance;

  template <class T>
  Moments(Crew& crew, int64_t rows, int64_t columns, const T* x) : mean(columns), variance(columns) {
    const int64_t piece = std::max<int64_t>(kPiece / columns, 16), pieces = ceil_div(rows, piece);
    std::vector<double> means(pieces * columns, 0.), squares(pieces * columns, 0.);
    crew.share_range(rows, piece, [&](int64_t begin, int64_t end) {
      double *m = means.data() + begin / piece * columns, *s = squares.data() + begin / piece * columns;
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t c = 0; c < columns; ++c) m[c] += to_float(x[r * columns + c]);
      }
      for (int64_t c = 0; c < columns; ++c) m[c] /= end - begin;
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          const double distance = to_float(x[r * columns + c]) - m[c];
          s[c] += distance * distance;
        }
      }
    });
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0, square = 0;
      for (int64_t p = 0; p < pieces; ++p) sum += means[p * columns + c] * static_cast<double>(rows_of(p, piece, rows));
      mean[c] = sum / rows;
      for (int64_t p = 0; p < pieces; ++p) {
        const double distance = means[p * columns + c] - sum / rows;
        square += squares[p * columns + c] + distance * distance * rows_of(p, piece, rows);
      }
      variance[c] = square / rows;
    }
  }

 private:
  static int64_t rows_of(int64_t number, int64_t piece, int64_t rows) { return std::min(piece, rows - number * piece); }
};

// BatchNorm of x (rows, columns), plus an addend unless it is nullptr, followed by ReLU if `relu`.
template <class T>
void batch_norm(Crew& crew, int64_t rows, int64_t columns, const T* x, const Moments& moments, float eps, const float* gamma,
                const float* beta, const T* addend, bool relu, T* out) {
  std::vector<float> scale(columns);
  for (int64_t c = 0; c < columns; ++c) scale[c] = gamma[c] / std::sqrt(moments.variance[c] + eps);
  const float *mean = moments.mean.data(), lowest = relu ? 0.f : -INFINITY;
  crew.share_range(rows, std::max<int64_t>(kPiece / columns, 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* from = x + r * columns;
      T* to = out + r * columns;
      for (int64_t c = 0; c < columns; ++c) {
        const float more = addend == nullptr ? 0.f : to_float(addend[r * columns + c]);
        const float value = (to_float(from[c]) - mean[c]) * scale[c] + beta[c] + more;
        to[c] = from_float<T>(value < lowest ? lowest : value);
      }
    }
  });
}

// Gradients of x, gamma and beta through BatchNorm.
template <class T>
void batch_norm_gradient(Crew& crew, int64_t rows, int64_t columns, const T* x, const Moments& moments, float eps,
                         const float* gamma, const T* dout, float* dgamma, float* dbeta, T* dx) {
  std::vector<float> inverse(columns);
  for (int64_t c = 0; c < columns; ++c) inverse[c] = 1 / std::sqrt(moments.variance[c] + eps);
  const float* mean = moments.mean.data();
  const int64_t piece = std::max<int64_t>(kPiece / columns, 16), pieces = ceil_div(rows, piece);
  std::vector<double> products(pieces * columns, 0.), sums(pieces * columns, 0.);
  crew.share_range(rows, piece, [&](int64_t begin, int64_t end) {
    double *product = products.data() + begin / piece * columns, *sum = sums.data() + begin / piece * columns;
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const float gradient = to_float(dout[r * columns + c]);
        sum[c] += gradient;
        product[c] += gradient * (to_float(x[r * columns + c]) - mean[c]);
      }
    }
  });
  std::vector<float> slope(columns), level(columns);
  for (int64_t c = 0; c < columns; ++c) {
    double sum = 0, product = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      sum += sums[p * columns + c];
      product += products[p * columns + c];
    }
    dbeta[c] = sum;
    dgamma[c] = product * inverse[c];
    level[c] = sum / rows;
    slope[c] = product / rows * inverse[c] * inverse[c];
  }
  crew.share_range(rows, piece, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t i = r * columns + c;
        const float centred = to_float(dout[i]) - level[c] - (to_float(x[i]) - mean[c]) * slope[c];
        dx[i] = from_float<T>(gamma[c] * inverse[c] * centred);
      }
    }
  });
}

// The window of an output cell along one axis, as a range of input cells.
struct Window {
  int64_t begin, end;
  Window(int64_t cell, int64_t pad, int64_t limit) : begin(std::max<int64_t>(2 * cell - pad, 0)),
                                                     end(std::min<int64_t>(2 * cell - pad + 3, limit)) {}
};

// Whether `value` replaces the maximum `best`. NaN is larger than any number.
inline bool exceeds(float value, float best) { return value > best || value != value; }

// Maximum of 3x3 cells with stride 2. The padding, `top` rows and `left` columns before the first cell and any after the last, is
// ignored.
template <class T>
void max_pool(Crew& crew, const Size& from, const Size& to, int64_t top, int64_t left, const T* in, T* out) {
  crew.share(to.b * to.h, [&](int64_t row) {
    const Window y(row % to.h, top, from.h);
    const T* image = in + row / to.h * from.h * from.w * from.c;
    std::vector<float> best(to.c);
    for (int64_t cell = 0; cell < to.w; ++cell) {
      const Window x(cell, left, from.w);
      std::fill(best.begin(), best.end(), -INFINITY);
      for (int64_t i = y.begin; i < y.end; ++i) {
        for (int64_t j = x.begin; j < x.end; ++j) {
          const T* pixel = image + (i * from.w + j) * from.c;
          for (int64_t c = 0; c < to.c; ++c) best[c] = exceeds(to_float(pixel[c]), best[c]) ? to_float(pixel[c]) : best[c];
        }
      }
      T* target = out + (row * to.w + cell) * to.c;
      for (int64_t c = 0; c < to.c; ++c) target[c] = from_float<T>(best[c]);
    }
  });
}

// Calls body(image, first channel, end channel) for pieces that share no cells.
template <class Body>
void share_channels(Crew& crew, const Size& size, const Body& body) {
  const int64_t pieces = ceil_div(size.c, kChannels);
  crew.share(size.b * pieces, [&](int64_t i) {
    const int64_t first = i % pieces * kChannels;
    body(i / pieces, first, std::min(size.c, first + kChannels));
  });
}

// Sets these channels of an image to 0.
inline void clear(const Size& size, int64_t image, int64_t first, int64_t end, float* out) {
  for (int64_t cell = image * size.h * size.w; cell < (image + 1) * size.h * size.w; ++cell) {
    std::fill(out + cell * size.c + first, out + cell * size.c + end, 0.f);
  }
}

// Gradient of max pooling: goes to the first maximum of each window.
template <class T>
void max_pool_gradient(Crew& crew, const Size& from, const Size& to, int64_t top, int64_t left, const T* in, const T* dout,
                       float* din) {
  share_channels(crew, from, [&](int64_t image, int64_t first, int64_t end) {
    const int64_t base = image * from.h * from.w * from.c;
    clear(from, image, first, end, din);
    for (int64_t row = 0; row < to.h; ++row) {
      const Window y(row, top, from.h);
      for (int64_t column = 0; column < to.w; ++column) {
        const Window x(column, left, from.w);
        const T* gradient = dout + ((image * to.h + row) * to.w + column) * to.c;
        for (int64_t c = first; c < end; ++c) {
          int64_t at = base + (y.begin * from.w + x.begin) * from.c + c;
          for (int64_t i = y.begin; i < y.end; ++i) {
            for (int64_t j = x.begin; j < x.end; ++j) {
              const int64_t candidate = base + (i * from.w + j) * from.c + c;
              if (exceeds(to_float(in[candidate]), to_float(in[at]))) at = candidate;
            }
          }
          din[at] += to_float(gradient[c]);
        }
      }
    }
  });
}

// Keeps every second row and column.
template <class T>
void subsample(Crew& crew, const Size& from, const Size& to, const T* in, T* out) {
  crew.share(to.b * to.h, [&](int64_t row) {
    const T* line = in + (row / to.h * from.h + row % to.h * 2) * from.w * from.c;
    for (int64_t x = 0; x < to.w; ++x) std::copy_n(line + 2 * x * from.c, to.c, out + (row * to.w + x) * to.c);
  });
}

template <class T>
void subsample_gradient(Crew& crew, const Size& from, const Size& to, const T* dout, T* din) {
  crew.share(from.b * from.h, [&](int64_t row) {
    T* line = din + row * from.w * from.c;
    std::fill_n(line, from.w * from.c, T{});
    const int64_t y = row % from.h;
    if (y % 2 != 0) return;
    const T* source = dout + (row / from.h * to.h + y / 2) * to.w * to.c;
    for (int64_t x = 0; x < to.w; ++x) std::copy_n(source + x * to.c, to.c, line + 2 * x * from.c);
  });
}

// The source of a cell on an upsampled axis: low * (1 - share) + high * share.
struct Tap {
  int64_t low, high;
  float share;
};

// With `bilinear`, half-pixel centres; otherwise the nearest source cell, rounded down.
inline std::vector<Tap> find_taps(int64_t from, int64_t to, bool bilinear) {
  std::vector<Tap> taps(to);
  const float scale = static_cast<float>(from) / to;
  for (int64_t i = 0; i < to; ++i) {
    const float position = std::max(0.f, bilinear ? (i + 0.5f) * scale - 0.5f : i * scale);
    const int64_t low = std::min<int64_t>(static_cast<int64_t>(position), from - 1);
    taps[i] = {low, std::min(low + 1, from - 1), bilinear ? position - low : 0.f};
  }
  return taps;
}

// out = fine + upsampled coarse.
template <class T>
void merge(Crew& crew, const Size& small, const Size& large, bool bilinear, const T* coarse, const T* fine, T* out) {
  const std::vector<Tap> ys = find_taps(small.h, large.h, bilinear), xs = find_taps(small.w, large.w, bilinear);
  crew.share(large.b * large.h, [&](int64_t row) {
    const Tap y = ys[row % large.h];
    const T* image = coarse + row / large.h * small.h * small.w * small.c;
    const T *low = image + y.low * small.w * small.c, *high = image + y.high * small.w * small.c;
    for (int64_t column = 0; column < large.w; ++column) {
      const Tap x = xs[column];
      const float a = (1 - y.share) * (1 - x.share), b = (1 - y.share) * x.share;
      const float c = y.share * (1 - x.share), d = y.share * x.share;
      const T *p = low + x.low * small.c, *q = low + x.high * small.c, *r = high + x.low * small.c, *s = high + x.high * small.c;
      const int64_t at = (row * large.w + column) * large.c;
      for (int64_t i = 0; i < large.c; ++i) {
        const float up = a * to_float(p[i]) + b * to_float(q[i]) + c * to_float(r[i]) + d * to_float(s[i]);
        out[at + i] = from_float<T>(to_float(fine[at + i]) + up);
      }
    }
  });
}

// Gradient of the coarse input of `merge`.
template <class T>
void merge_gradient(Crew& crew, const Size& small, const Size& large, bool bilinear, const T* dout, float* dcoarse) {
  const std::vector<Tap> ys = find_taps(small.h, large.h, bilinear), xs = find_taps(small.w, large.w, bilinear);
  share_channels(crew, small, [&](int64_t image, int64_t first, int64_t end) {
    float* base = dcoarse + image * small.h * small.w * small.c;
    clear(small, image, first, end, dcoarse);
    for (int64_t row = 0; row < large.h; ++row) {
      for (int64_t column = 0; column < large.w; ++column) {
        const T* gradient = dout + ((image * large.h + row) * large.w + column) * large.c;
        const auto add = [&](int64_t y, int64_t x, float weight) {
          float* target = base + (y * small.w + x) * small.c;
          if (weight == 0) return;
          for (int64_t c = first; c < end; ++c) target[c] += weight * to_float(gradient[c]);
        };
        const Tap y = ys[row], x = xs[column];
        add(y.low, x.low, (1 - y.share) * (1 - x.share));
        add(y.low, x.high, (1 - y.share) * x.share);
        add(y.high, x.low, y.share * (1 - x.share));
        add(y.high, x.high, y.share * x.share);
      }
    }
  });
}

}  // namespace layers
