"""One training step: losses, gradients, overflow check, update."""
from mindspore import Tensor, amp, nn, ops

from src.compile_cache import stored_graph


class LossAndGradients(nn.Cell):
    """A batch -> the losses, the gradients scaled by the loss scale, and their sums.

    Args:
        forward: cell whose output's first element is the loss; weights: what is trained; scaler: mindspore.amp's;
        reduce: cell of the gradients, see `src.train.all_reduce`.
    """

    def __init__(self, forward, weights, scaler, reduce):
        super().__init__(auto_prefix=False)
        self.forward = forward
        self.scaler = scaler
        self.loss_scale = scaler.scale_value  # a parameter that no cell has is not set in a graph of the compile cache
        self.reduce = reduce
        self.value_and_grad = ops.value_and_grad(self.scaled_loss, None, weights, has_aux=True)

    def scaled_loss(self, *batch):
        losses = self.forward(*batch)
        return self.scaler.scale(losses[0]), losses

    def construct(self, *batch):
        (_, losses), gradients = self.value_and_grad(*batch)
        gradients = self.reduce(gradients)
        sums = ()
        for gradient in gradients:
            # In two steps: on the CPU the sum of a whole matrix at once takes ten times as long.
            sums += (gradient.reshape(gradient.shape[0], -1).sum(1).sum(),)
        return losses, gradients, ops.stack(sums)


class Update(nn.Cell):
    """Scaled gradients -> changed weights.

    Args:
        optimizer: MindSpore optimizer; scaler: mindspore.amp's; max_norm: of all gradients together, or False.
    """

    def __init__(self, optimizer, scaler, max_norm):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.scaler = scaler
        self.loss_scale = scaler.scale_value  # see LossAndGradients
        self.max_norm = max_norm

    # One argument a gradient: a tuple would be a constant of the graph, which would be compiled anew at every step.
    def construct(self, *gradients):
        gradients = self.scaler.unscale(gradients)
        if self.max_norm:
            gradients = ops.clip_by_global_norm(gradients, self.max_norm)
        return self.optimizer(gradients)


class TrainStep:
    """A mixed-precision training step, in two graphs: between them the host decides whether the step counts.

    Args:
        forward: `TrainingForward`; optimizer: MindSpore optimizer over its weights; scaler: mindspore.amp's;
        max_norm: see `Update`; exchange: with other processes, see `src.train.all_reduce`.
    """

    def __init__(self, forward, optimizer, scaler, max_norm, all_reduce):
        self.scaler = scaler
        self.all_reduce = all_reduce
        self.gradients = LossAndGradients(forward, optimizer.parameters, scaler, all_reduce.in_graph)
        self.update = Update(optimizer, scaler, max_norm)
        self.gradients.set_train()
        self.update.set_train()

    def __call__(self, *batch):
        """Returns the losses as a numpy array and whether the weights changed: they do not after an overflow."""
        with stored_graph("gradients"):
            losses, gradients, sums = self.gradients(*batch)
        gradients, losses, sums = self.all_reduce.on_host(gradients, losses, sums)
        # An inf or nan anywhere, on any process, is one in its sum, and MindSpore's check of every element takes ten times
        # as long.
        finite = amp.all_finite((Tensor(sums),))
        self.scaler.adjust(finite)
        applied = bool(finite.asnumpy())
        if applied:
            with stored_graph("update"):
                self.update(*gradients)
        return losses, applied


def build_scaler(cfg):
    """The loss scaler that `ms_loss_scaler` and `ms_loss_scaler_value` ask for."""
    if cfg.ms_loss_scaler == "dynamic":
        return amp.DynamicLossScaler(cfg.ms_loss_scaler_value, scale_factor=2, scale_window=2000)
    return amp.StaticLossScaler(cfg.ms_loss_scaler_value if cfg.ms_loss_scaler == "static" else 1.0)
