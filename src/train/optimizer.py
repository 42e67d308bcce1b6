"""Stochastic gradient descent with momentum."""
from mindspore import Tensor, nn


def build_optimizer(cfg, parameters):
    """Momentum over `parameters`, whose learning rate `set_learning_rate` sets before each step.

    Args:
        cfg: the section `optimizer`; with `filter_bias_and_bn`, weight decay acts on convolution and dense weights only.
    """
    groups = [{"params": list(parameters), "weight_decay": cfg.weight_decay}]
    if cfg.filter_bias_and_bn:
        weights = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": cfg.weight_decay}, {"params": others, "weight_decay": 0.0},
                  {"order_params": list(parameters)}]
        groups = [group for group in groups if group.get("params", True)]
    return nn.Momentum(groups, learning_rate=0.0, momentum=cfg.momentum, weight_decay=cfg.weight_decay,
                       use_nesterov=cfg.nesterov)


def set_learning_rate(optimizer, rate):
    """Set the rate of the next step."""
    optimizer.learning_rate.set_data(Tensor(rate, optimizer.learning_rate.dtype))
