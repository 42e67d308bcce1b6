"""Train a few steps: few_steps.py CONFIG STEPS BATCH_SIZE ACCUMULATE_STEPS OUT. Rank 0 writes the first gradients and the last
weights."""
import itertools
import sys

from src.run.launch import launch


def main(args, group, _):
    import numpy as np

    from src.config import load_config, with_settings
    from src.dataset.loader import TrainLoader
    from src.dataset.splits import open_training_set
    from src.detector import build_detector
    from src.run.device import set_up_device
    from src.train.parallel import broadcast_parameters
    from src.train.step import StepResult, TrainStep

    config, steps, batch_size, accumulate_steps, out = args
    settings = {"batch_size": int(batch_size), "accumulate_steps": int(accumulate_steps), "epochs": 10, "seed": 5}
    cfg = load_config(config, [(key, value, "test") for key, value in settings.items()])
    cfg = set_up_device(cfg, group)
    dataset = open_training_set(cfg, group)
    # Each rank uses another seed: all ranks must get the weights of rank 0.
    network = build_detector(with_settings(cfg, {"seed": 5 + group.rank}), len(dataset.names))
    step = TrainStep(network, cfg, len(dataset.names), group)
    broadcast_parameters(group, step.parameters())
    loader = TrainLoader(dataset, cfg, group.rank, group.size)
    results, batches = {}, loader.batches()
    for index in range(int(steps)):
        micro_batches = list(itertools.islice(batches, cfg.accumulate_steps))
        result = StepResult.read(step(micro_batches, 0.01, index))
        assert result.applied
        if index == 0:  # these are the gradients, with weight decay
            results.update({f"gradient {moment.name}": moment.asnumpy().copy() for moment in step.optimizer.moments})
    results.update({f"weight {p.name}": p.asnumpy() for p in network.get_parameters()}, losses=result.losses)
    if group.rank == 0:
        np.savez(out, **results)


if __name__ == "__main__":
    sys.exit(launch(main, lambda: sys.argv[1:]))
