"""Train a detector: python train.py --config CONFIG --device_target Ascend|GPU|CPU --mix True|False (--help lists all).

With several devices: msrun --worker_num=8 --local_worker_num=8 train.py ..., or mpirun -n 8 python train.py ...
"""
import logging
import sys
from typing import TYPE_CHECKING

from src.config import Config, with_settings
from src.config.command_line import parse_train_args
from src.run.launch import Group, StopSignals, launch

if TYPE_CHECKING:
    from src.run.run_folder import RunFolder

logger = logging.getLogger("faster_rcnn")


def main(cfg: Config, group: Group, stop: StopSignals) -> None:
    """Train to the last epoch, from the checkpoint that the configuration names or from the start.

    Raises a UserError after a mistake that the user can fix, and Stopped after a signal, when the state is saved.
    """
    # Imported here, because MindSpore reads the environment that `launch` has prepared.
    from src.run.device import set_up_device
    from src.run.modelarts import download_dataset
    from src.run.run_folder import RunFolder

    cfg = download_dataset(set_up_device(cfg, group), group)
    with RunFolder(cfg, group) as run:
        train(cfg, run, stop)


def train(cfg: Config, run: "RunFolder", stop: StopSignals) -> None:
    """Train in the folder `run` until the last epoch, or until a signal sets `stop`."""
    from src.checkpoint import stored_settings
    from src.dataset.loader import TrainLoader
    from src.dataset.splits import open_training_set
    from src.detector import build_detector
    from src.run.compile_cache import training_graphs, use_compile_cache
    from src.train.loop import DivergenceGuard, Evaluator, StepReader, evaluate_if_due, profiled, stop_if_asked, timed_steps
    from src.train.metrics import Metrics
    from src.train.parallel import average_statistics
    from src.train.state import Saver, Schedule, TrainState, find_checkpoint, seed_of
    from src.train.step import TrainStep

    group = run.group
    checkpoint = find_checkpoint(cfg, run)
    dataset = open_training_set(cfg, group)
    cfg = with_settings(cfg, {"seed": seed_of(checkpoint, cfg, dataset.names)})
    loader = TrainLoader(dataset, cfg, group.rank, group.size)
    logger.info("%d training images, %d classes", len(loader.records), len(dataset.names))
    schedule = Schedule(cfg, loader.steps_per_epoch, group)

    network = build_detector(cfg, len(dataset.names), group.rank == 0 and not checkpoint, group.size)
    step = TrainStep(network, cfg, len(dataset.names), group)
    state = TrainState(cfg.seed)
    saver = Saver(run, step, state, schedule, dataset.names, stored_settings(cfg))
    saver.begin(checkpoint)
    del checkpoint  # frees hundreds of megabytes
    evaluator = Evaluator(cfg, network, dataset, run, stop) if cfg.run_eval else None
    if evaluator:
        saver.use_validation_set(evaluator.digest)
    guard = DivergenceGuard(cfg, loader, saver)
    graphs = training_graphs(loader.canvas_order(state.global_step * cfg.accumulate_steps),
                             evaluator.loader.canvas_order() if evaluator else cfg.data.canvases,
                             cfg.accumulate_steps, group.size)
    use_compile_cache(cfg, graphs, len(dataset.names), loader.padding_size)
    saver.begin_files(cfg)

    with stop, Metrics(cfg, run, schedule, state) as metrics, profiled(step, cfg, run) as profiled_step:
        with metrics.pause():
            evaluate_if_due(evaluator, saver, metrics)  # an earlier run may have ended before its evaluation
        reader = StepReader(metrics, guard)
        for done, (batches, waited) in enumerate(timed_steps(loader, cfg, state, schedule, stop), start=state.global_step + 1):
            rate = schedule.learning_rate(done - 1)
            numbers = profiled_step(batches, rate, done - 1, stop.status > 0)
            reader.add(numbers, done, rate, batches, {"data_wait": waited, **step.all_reduce.seconds})
            with metrics.pause():
                if schedule.ends_epoch(done):
                    average_statistics(group, network)
                    saver.save()
                    evaluate_if_due(evaluator, saver, metrics)
                elif schedule.saves_inside_epoch(done):
                    saver.save()
                stop_if_asked(stop, saver, reader)
        if evaluator is None:
            metrics.draw_curves()
        guard.check_end()


if __name__ == "__main__":
    sys.exit(launch(main, parse_train_args))
