"""Store what train.py would train on, for tests/programs/train_torchvision.py. It takes the same arguments as train.py.

SAVE_DIR/batches.npz contains the images of all batches on their canvas, their valid sizes, boxes and labels, the learning rate of
each step, and the settings. The canvas must be the same for all images.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.config.command_line import parse_train_args  # noqa: E402
from src.run.launch import launch  # noqa: E402


def main(cfg, group, _):
    import numpy as np

    from src.dataset.loader import TrainLoader
    from src.dataset.splits import open_training_set
    from src.run.device import set_up_device
    from src.train.state import Schedule

    cfg = set_up_device(cfg, group)
    loader = TrainLoader(open_training_set(cfg, group), cfg)
    schedule = Schedule(cfg, loader.steps_per_epoch, group)
    names = ("image", "valid_size", "boxes", "labels", "mask")
    columns = zip(*([getattr(batch, name).asnumpy() for name in names] for batch in loader.batches()))
    rates = [schedule.learning_rate(step) for step in range(schedule.total_steps)]
    Path(cfg.save_dir).mkdir(parents=True, exist_ok=True)
    np.savez(Path(cfg.save_dir, "batches.npz"), **dict(zip(names, map(np.stack, columns))), rates=rates,
             settings=cfg.model_dump_json())


if __name__ == "__main__":
    sys.exit(launch(main, parse_train_args))
