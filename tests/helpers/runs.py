"""The parts of a training run, for a network with few weights."""
from types import SimpleNamespace

from src.run.distributed import SingleProcess
from src.run.run_folder import RunFolder
from src.train.state import Schedule

NO_WARM_UP = SimpleNamespace(warmup_step=0, warmup_ratio=0.5, decay_rate=0.1, milestones=[], base_batch_size=0)
MOMENTUM = SimpleNamespace(weight_decay=0.0, momentum=0.9, nesterov=False, filter_bias_and_bn=True)


def settings(save_dir="", **changes):
    """Return the settings for a run's folder, schedule, metrics and training step."""
    values = {"save_dir": str(save_dir), "model_dump": lambda include: {},
              "resume_ckpt": "", "net": "net", "backbone": SimpleNamespace(name="b"), "train_url": "",
              "device_target": "CPU", "mix": False, "seed": 1, "data": SimpleNamespace(dataset_dir="d", target_size=[64, 64]),
              "enable_modelarts": False, "keep_checkpoint_max": 5, "batch_size": 2, "accumulate_steps": 1, "epochs": 3,
              "lr": NO_WARM_UP, "lr_init": 0.1, "early_stop": 0, "optimizer": MOMENTUM, "clip_grads": False,
              "ms_loss_scaler": "static", "ms_loss_scaler_value": 256.0, "mix_dtype": "float16",
              "save_interval_steps": 0, "eval_interval": 1, "log_interval": 1, "tensorboard": False, "ckpt_url": "", "weight": ""}
    return SimpleNamespace(**{**values, **changes})


def schedule(steps_per_epoch, **changes):
    """Return the schedule of a single process."""
    return Schedule(settings(**changes), steps_per_epoch, SingleProcess())


def run_folder(save_dir, group=None, **changes):
    """Return a run's folder. Its lock is acquired only when it is used as a context manager."""
    return RunFolder(settings(save_dir, **changes), group or SingleProcess())
