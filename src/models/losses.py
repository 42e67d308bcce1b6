"""Classification and box losses as weighted sums. The caller divides them by the number of samples."""
from __future__ import annotations

from mindspore import Tensor, ops

from src.models.operators import SUM


def binary_cross_entropy_sum(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over all elements of weight * BCE(sigmoid(logits), target); all inputs are (B, S) float32."""
    # log(1 + exp(-|x|)) never overflows.
    loss = ops.relu(logits) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
    return SUM(loss * weight)


def cross_entropy_sum(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over rows of weight * CE(softmax(logits), label). logits (M, C), weight (M,) float32, label (M,) int32."""
    log_probability = ops.log_softmax(logits, -1)
    picked = ops.gather_elements(log_probability, 1, label.expand_dims(1)).squeeze(1)
    return -SUM(picked * weight)


def smooth_l1_sum(difference: Tensor, beta: float, weight: Tensor) -> Tensor:
    """Return the sum of weight * smooth L1 (arXiv:1504.08083, equation 3): 0.5 d^2 / beta if |d| < beta, else |d| - beta / 2.

    Args:
        difference: (..., 4) float32, predicted minus target deltas.
        beta: |d| at which the loss changes from quadratic to linear, above 0.
        weight: (...,) float32.
    """
    size = ops.abs(difference)
    # The quadratic loss of min(|d|, beta) plus the linear rest: the same function without a branch.
    near = ops.minimum(size, beta)
    loss = 0.5 * near * near / beta + (size - near)
    return SUM(SUM(loss, -1) * weight)
