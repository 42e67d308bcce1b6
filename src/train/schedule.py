"""The learning rate as a function of the step."""
import logging

logger = logging.getLogger("faster_rcnn")


def scaled_base_rate(cfg, images_per_step):
    """`lr_init`, given for `lr.base_batch_size` images a step, scaled linearly to the actual number (arXiv:1706.02677).

    A `base_batch_size` of 0 leaves it as it is.
    """
    base = cfg.lr.base_batch_size
    if base == 0:
        return cfg.lr_init
    rate = cfg.lr_init * images_per_step / base
    logger.info("learning rate: %g for %d images a step, scaled to %g for %d images a step (lr.base_batch_size=0 turns the "
                "scaling off)", cfg.lr_init, base, rate, images_per_step)
    return rate


def learning_rate(base_rate, lr, steps_per_epoch, step):
    """The rate of step number `step`, counted from 0.

    A linear warm-up from warmup_ratio * base_rate during `warmup_step` steps, times `decay_rate` after each milestone.

    Args:
        base_rate: after scaling; lr: the section `lr` of the configuration; its milestones are epochs.
    """
    passed = sum(step >= milestone * steps_per_epoch for milestone in lr.milestones)
    rate = base_rate * lr.decay_rate**passed
    if step < lr.warmup_step:
        rate *= lr.warmup_ratio + (1 - lr.warmup_ratio) * step / lr.warmup_step
    return rate
