"""Ten training steps: ten_steps.py CONFIG BATCH_SIZE OUT writes the first gradients and the last weights, on rank 0."""
import sys

from src.launch import launch


def main(args, group, _):
    import numpy as np

    from src.compile_cache import stored_graph, training_graphs, use_compile_cache
    from src.config import load_config, with_settings
    from src.dataset.loader import TrainLoader
    from src.dataset.splits import open_training_set
    from src.detector import build_detector
    from src.device import set_up_device
    from src.train.all_reduce import broadcast_parameters
    from src.train.step import TrainStep

    config, batch_size, out = args
    cfg = load_config(config, [("batch_size", int(batch_size), "test"), ("epochs", 10, "test"), ("seed", 5, "test")])
    set_up_device(cfg, group)
    dataset = open_training_set(cfg, group)
    # From another seed on each rank: rank 0's weights are for all.
    network = build_detector(with_settings(cfg, {"seed": 5 + group.rank}), len(dataset.names))
    step = TrainStep(network, cfg, len(dataset.names), group)
    broadcast_parameters(group, step.parameters())
    loader = TrainLoader(dataset, cfg, group.rank, group.size)
    graphs = training_graphs(loader.canvas_order(), [])
    use_compile_cache(cfg, group, graphs, len(dataset.names), loader.padding_size)
    results = {}
    for index, batch in zip(range(10), loader.batches()):
        if index == 0:
            with stored_graph(graphs[0]):
                losses, gradients, sums = step.gradient_step.gradients[batch.canvas](*step.inputs(batch, index))
            gradients, *_ = step.all_reduce.on_host(gradients, losses, sums)
            results.update({f"gradient {p.name}": g.asnumpy().copy() for p, g in zip(step.optimizer.parameters, gradients)})
        losses, applied = step(batch, 0.01, index)
        assert applied
    results.update({f"weight {p.name}": p.asnumpy() for p in network.get_parameters()}, losses=losses)
    if group.rank == 0:
        np.savez(out, **results)


if __name__ == "__main__":
    sys.exit(launch(main, lambda: sys.argv[1:]))
