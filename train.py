"""Train a detector: python train.py --config CONFIG --device_target Ascend|GPU|CPU --mix True|False (--help lists all)."""
import sys

import src  # noqa: F401 sets MindSpore's environment before it is imported
from src.cli import parse_train_args, run_main
from src.dataset.open import open_dataset
from src.dataset.pipeline import EvalPipeline, TrainPipeline
from src.dataset.unreadable import UnreadableLog
from src.detector import Predictor, build_detector
from src.device import set_up_device
from src.errors import UserError
from src.evaluation.evaluate import evaluate
from src.log import set_up_logging
from src.models.faster_rcnn import TrainingForward
from src.train.checkpoint import progress_of, read_checkpoint
from src.train.loop import Trainer
from src.train.optimizer import build_optimizer
from src.train.priorities import Priorities
from src.train.state import TrainingState
from src.train.step import TrainOneStepCell, build_scaler


def main():
    cfg = parse_train_args()
    logger = set_up_logging()
    set_up_device(cfg)
    stored = read_checkpoint(cfg.resume_ckpt) if cfg.resume_ckpt else {}
    progress = progress_of(stored, cfg.resume_ckpt)
    if progress and progress["seed"] != cfg.seed:
        logger.info("seed %d of %s is used instead of %d", progress["seed"], cfg.resume_ckpt, cfg.seed)
        cfg.seed = progress["seed"]

    dataset = open_dataset(cfg.data, "train")
    pipeline = TrainPipeline(dataset, cfg)
    num_classes = len(dataset.names)
    logger.info("%d training images, %d classes: %s", len(pipeline.records), num_classes, ", ".join(dataset.names))

    network = build_detector(cfg, num_classes)
    forward = TrainingForward(network, cfg, num_classes)
    optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
    scaler = build_scaler(cfg)
    state = TrainingState(cfg.seed, scaler)
    if stored:
        state.resume(network, optimizer, stored, cfg.resume_ckpt, pipeline.steps_per_epoch)
        pipeline.start_step = state.global_step

    trainer = Trainer(cfg, network, TrainOneStepCell(forward, optimizer, scaler, cfg.clip_grads), optimizer,
                      Priorities(cfg, forward.num_anchors, forward.num_proposals), pipeline,
                      UnreadableLog(pipeline.records), state, build_evaluation(cfg, network, dataset))
    trainer.run()


def build_evaluation(cfg, network, training_set):
    """A function of a results folder that scores the network on the validation images, or None without run_eval."""
    if not cfg.run_eval:
        return None
    dataset = open_dataset(cfg.data, "val")
    if dataset.names != training_set.names:
        raise UserError(f"{dataset.annotation_path} has the classes {dataset.names}, but {training_set.annotation_path} "
                        f"has {training_set.names}; both must list the same categories.")
    pipeline, predictor = EvalPipeline(dataset, cfg), Predictor(network, cfg)

    def run(folder):
        metrics = evaluate(predictor, pipeline, dataset, cfg, folder)
        network.set_train()
        return metrics

    return run


if __name__ == "__main__":
    sys.exit(run_main(main))
