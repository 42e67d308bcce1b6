// The kernels that mindspore_operators.cc calls. Each runs on all processors that its caller may use, with the same result on
// any number of them, and throws std::bad_alloc where memory is short.
#pragma once

#include <cstdint>

namespace kernels {

// candidates (B or 1, N, 4) as `candidate_images` says, boxes (B, G, 4), mask (B, G); the outputs are (B, N).
void match(const float* candidates, int64_t candidate_images, const float* boxes, const bool* mask, int64_t B, int64_t N,
           int64_t G, float* overlap, int32_t* index, bool* is_best);

// levels (B, C, heights[i], widths[i]), rois (B, R, 4) in cells of their level, level_of_roi (B * R), out (B * R, C,
// resolution, resolution); the backward pass takes the gradient of `out` and overwrites those of the levels, or adds to them.
void roi_align_forward(const float* const* levels, const int64_t* heights, const int64_t* widths, int num_levels,
                       const float* rois, const int32_t* level_of_roi, int64_t B, int64_t R, int64_t C, int resolution,
                       int samples, bool aligned, float* out);
void roi_align_backward(const float* dout, const int64_t* heights, const int64_t* widths, int num_levels,
                        const float* rois, const int32_t* level_of_roi, int64_t B, int64_t R, int64_t C, int resolution,
                        int samples, bool aligned, bool add, float* const* dlevels);

// x (B, C, H, W), w (K, C, 3, 3), bias (K) or null, y (B, K, H, W). With `backward_input` x is the gradient of the output
// (B, K, H, W) and y that of the input (B, C, H, W).
void winograd_conv3x3(const float* x, const float* w, const float* bias, float* y, int64_t B, int64_t C, int64_t K,
                      int64_t H, int64_t W, bool backward_input);
// x (B, C, H, W), dy (B, K, H, W), dw (K, C, 3, 3).
void winograd_conv3x3_weight_gradient(const float* x, const float* dy, float* dw, int64_t B, int64_t C, int64_t K, int64_t H,
                                      int64_t W);

// x (rows, columns) times factor (rows); y as x.
void scale_rows(const float* x, const float* factor, int64_t rows, int64_t columns, float* y);

// image (B, H, W, 3), valid_size (B, 2), tables (3, 256), channels (3): the channel of the image that each table is for;
// out (B, 3, H, W), zero outside the valid size.
void preprocess(const uint8_t* image, const float* valid_size, const float* tables, const int32_t* channels, int64_t B,
                int64_t H, int64_t W, float* out);

// boxes (B, N, 4) by falling score within each group, ends (groups) of these; keep (B, N).
void nms(const float* boxes, const int32_t* ends, int64_t B, int64_t N, int64_t groups, float threshold, bool* keep);

// x (planes, h, w), out (planes, H, W); the backward pass takes the gradient of `out` and overwrites that of x.
void resize_bilinear(const float* x, int64_t planes, int64_t h, int64_t w, int64_t H, int64_t W, float* out);
void resize_bilinear_backward(const float* dout, int64_t planes, int64_t h, int64_t w, int64_t H, int64_t W, float* dx);

}  // namespace kernels
