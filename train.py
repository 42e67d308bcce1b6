"""Train a detector: python train.py --config CONFIG --device_target Ascend|GPU|CPU --mix True|False (--help lists all).

With several devices: mpirun -n 8 python train.py ...
"""
import contextlib
import logging
import sys

from src.stop import Stopped, StopSignals

logger = logging.getLogger("faster_rcnn")
stop = StopSignals()
if __name__ == "__main__":
    stop.watch()  # before MindSpore is imported, which starts threads

from src.compile_cache import TRAINING, use_compile_cache
from src.config.command_line import parse_train_args
from src.cpu_kernels.replace import use_kernels
from src.dataset.pipeline import EvalPipeline, TrainPipeline
from src.dataset.unreadable import UnreadableLog
from src.detector import Predictor, build_detector
from src.device import norm_layer, set_up_device
from src.errors import UserError
from src.evaluation.evaluate import evaluate, write_results
from src.launch import run_together
from src.log import set_up_logging
from src.modelarts import Outputs, bring_checkpoint, bring_in
from src.models.faster_rcnn import TrainingForward
from src.together import check_program, open_dataset_together
from src.train.all_reduce import build_all_reduce
from src.train.lock import claim_folder
from src.train.loop import Trainer
from src.train.optimizer import build_optimizer
from src.train.profiling import profiled
from src.train.resume import checkpoint_of_run, take_up
from src.train.sampling import SamplingPriorities
from src.train.saver import Saver
from src.train.state import TrainingState
from src.train.step import TrainStep, build_scaler
from src.visualization.samples import write_samples


def main(group):
    cfg = parse_train_args()
    set_up_logging(group.rank)
    check_program(group, cfg)
    with claim_folder(cfg.save_dir) if group.rank == 0 else contextlib.nullcontext():
        bring_in(cfg, group)
        bring_checkpoint(cfg, group)
        with Outputs(cfg, group) as outputs:
            return train(cfg, group, outputs)


def train(cfg, group, outputs):
    """Train from the checkpoint that cfg asks for to the end, or to a signal; returns the status to exit with."""
    set_up_device(cfg, group)
    checkpoint = checkpoint_of_run(cfg, group)
    if checkpoint.progress and checkpoint.progress["seed"] != cfg.seed:
        logger.info("seed %d of %s is used instead of %d", checkpoint.progress["seed"], checkpoint.path, cfg.seed)
        cfg.seed = checkpoint.progress["seed"]

    dataset = open_dataset_together(cfg, "train", group)
    pipeline = TrainPipeline(dataset, cfg, rank=group.rank, size=group.size)
    num_classes = len(dataset.names)
    logger.info("%d training images, %d classes: %s", len(pipeline.records), num_classes, ", ".join(dataset.names))

    use_compile_cache(cfg, group, "train", TRAINING, num_classes, pipeline.padding_size)
    if group.rank > 0:
        cfg.backbone.pretrained = False  # rank 0 gives its weights to all
    network = build_detector(cfg, num_classes, norm_layer(cfg, group))
    forward = use_kernels(TrainingForward(network, cfg, num_classes), cfg)
    optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
    scaler = build_scaler(cfg)
    state = TrainingState(cfg.seed, scaler)
    take_up(checkpoint, cfg, dataset.names, network, optimizer, state, pipeline.steps_per_epoch, group)
    del checkpoint  # hundreds of megabytes
    pipeline.start_step = state.global_step

    all_reduce = build_all_reduce(group, cfg.device_target, optimizer.parameters)
    step = TrainStep(forward, optimizer, scaler, cfg.clip_grads, all_reduce)
    priorities = SamplingPriorities(cfg, forward.num_anchors, forward.num_proposals, group.rank)
    saver = Saver(cfg, network, optimizer, state, group, pipeline.steps_per_epoch, outputs, dataset.names)
    evaluation = build_evaluation(cfg, network, dataset, stop, group)
    try:
        with profiled(step, cfg, group) as step:
            Trainer(cfg, network, step, optimizer, priorities, pipeline, UnreadableLog(pipeline.records), state, saver, stop,
                    group, evaluation).run()
    except Stopped as stopped:
        return stopped.status
    return 0


def build_evaluation(cfg, network, training_set, stop, group):
    """A function of a results folder that scores the network on the validation images and gives the metrics, on rank 0; None
    without run_eval.

    It raises Stopped where the run is to end: what it computes is computed again later.
    """
    if not cfg.run_eval:
        return None
    dataset = open_dataset_together(cfg, "val", group)
    if dataset.names != training_set.names:
        raise UserError(f"{dataset.annotation_path} has the classes {dataset.names}, but {training_set.annotation_path} "
                        f"has {training_set.names}; both must list the same categories.")
    pipeline, predictor = EvalPipeline(dataset, cfg, group.rank, group.size), Predictor(network, cfg)

    def predict(*batch):
        stop.raise_if_asked()
        return predictor(*batch)

    def run(folder):
        evaluation = evaluate(predict, pipeline, dataset, cfg, group)
        network.set_train()
        if group.rank == 0:
            try:
                write_results(folder, evaluation.metrics, evaluation.results)
                write_samples(folder, dataset, evaluation.results)
            except UserError as error:
                logger.error("%s; training goes on", error)
        return evaluation and evaluation.metrics

    return run


if __name__ == "__main__":
    sys.exit(run_together(main))
