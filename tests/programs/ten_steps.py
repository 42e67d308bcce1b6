"""Ten training steps: ten_steps.py CONFIG BATCH_SIZE OUT writes the first gradients and the last weights, on rank 0."""
import sys

import numpy as np

import src  # noqa: F401
from src.config import load_config, with_settings
from src.dataset.pipeline import TrainPipeline
from src.detector import build_detector
from src.device import set_up_device
from src.distributed import join_processes
from src.models.faster_rcnn import TrainingForward
from src.together import open_dataset_together
from src.train.all_reduce import broadcast_parameters, build_all_reduce
from src.train.loop import TRAINING_COLUMNS
from src.train.optimizer import build_optimizer, set_learning_rate
from src.train.sampling import SamplingPriorities
from src.train.step import TrainStep, build_scaler


def main(config, batch_size, out):
    group = join_processes()
    cfg = load_config(config, [("batch_size", int(batch_size), "test"), ("epochs", 10, "test"), ("seed", 5 + group.rank, "test")])
    set_up_device(cfg, group)
    dataset = open_dataset_together(cfg, "train", group)
    network = build_detector(cfg, len(dataset.names))  # from another seed on each rank: rank 0's weights are for all
    cfg = with_settings(cfg, {"seed": 5})
    pipeline = TrainPipeline(dataset, cfg, rank=group.rank, size=group.size)
    optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
    broadcast_parameters(group, [*network.get_parameters(), *optimizer.moments])
    forward = TrainingForward(network, cfg, len(dataset.names))
    all_reduce = build_all_reduce(group, cfg.device_target, optimizer.parameters)
    step = TrainStep(forward, optimizer, build_scaler(cfg), cfg.clip_grads, all_reduce)
    priorities = SamplingPriorities(cfg, forward.num_anchors, forward.num_proposals, group.rank)
    set_learning_rate(optimizer, 0.01)
    results = {}
    for index, batch in zip(range(10), pipeline):
        inputs = (*batch[:TRAINING_COLUMNS], *priorities.draw(index, batch[2].shape[1]))
        if index == 0:
            losses, gradients, sums = step.gradients(*inputs)
            gradients, *_ = all_reduce.on_host(gradients, losses, sums)
            results.update({f"gradient {p.name}": g.asnumpy().copy() for p, g in zip(optimizer.parameters, gradients)})
        losses, applied = step(*inputs)
        assert applied
    results.update({f"weight {p.name}": p.asnumpy() for p in network.get_parameters()}, losses=losses)
    if group.rank == 0:
        np.savez(out, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
