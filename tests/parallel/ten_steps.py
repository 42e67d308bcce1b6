"""Ten training steps: ten_steps.py CONFIG BATCH_SIZE OUT writes the first gradients and the last weights, on rank 0."""
import sys

import numpy as np

import src  # noqa: F401
from src.config.load import load_config
from src.dataset.pipeline import TrainPipeline
from src.detector import build_detector
from src.device import set_up_device
from src.models.faster_rcnn import TrainingForward
from src.parallel import join_processes
from src.together import open_dataset_together
from src.train.exchange import build_exchange, share_parameters
from src.train.loop import TRAINING_COLUMNS
from src.train.optimizer import build_optimizer, set_learning_rate
from src.train.priorities import Priorities
from src.train.step import TrainOneStepCell, build_scaler


def main(config, batch_size, out):
    group = join_processes()
    cfg = load_config(config, [("batch_size", int(batch_size), "test"), ("epochs", 10, "test"), ("seed", 5 + group.rank, "test")])
    set_up_device(cfg, group)
    dataset = open_dataset_together(cfg, "train", group)
    network = build_detector(cfg, len(dataset.names))  # from another seed on each rank: rank 0's weights are for all
    cfg.seed = 5
    pipeline = TrainPipeline(dataset, cfg, rank=group.rank, size=group.size)
    optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
    share_parameters(group, [*network.get_parameters(), *optimizer.moments])
    forward = TrainingForward(network, cfg, len(dataset.names))
    exchange = build_exchange(group, cfg.device_target, optimizer.parameters)
    step = TrainOneStepCell(forward, optimizer, build_scaler(cfg), cfg.clip_grads, exchange)
    priorities = Priorities(cfg, forward.num_anchors, forward.num_proposals, group.rank)
    set_learning_rate(optimizer, 0.01)
    results = {}
    for index, batch in zip(range(10), pipeline):
        inputs = (*batch[:TRAINING_COLUMNS], *priorities.draw(index, batch[2].shape[1]))
        if index == 0:
            losses, gradients, sums = step.gradients(*inputs)
            gradients, *_ = exchange.on_host(gradients, losses, sums)
            results.update({f"gradient {p.name}": g.asnumpy().copy() for p, g in zip(optimizer.parameters, gradients)})
        losses, applied = step(*inputs)
        assert applied
    results.update({f"weight {p.name}": p.asnumpy() for p in network.get_parameters()}, losses=losses)
    if group.rank == 0:
        np.savez(out, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
