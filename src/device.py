"""What differs between Ascend, GPU and CPU: choosing the device."""
import logging
import os

import mindspore as ms

from src.errors import UserError

logger = logging.getLogger("faster_rcnn")


def set_up_device(cfg):
    """Make MindSpore use cfg.device_target in mode cfg.ms_mode.

    Raises:
        UserError: the device is not there or MindSpore was built without it.
    """
    try:
        ms.set_device(cfg.device_target)
    except (RuntimeError, ValueError) as error:
        reason = str(error).split(". ")[0]
        raise UserError(f"device_target {cfg.device_target} cannot be used here ({reason}); "
                        "install MindSpore for it, or give --device_target CPU.") from error
    ms.set_context(mode=ms.GRAPH_MODE if cfg.ms_mode == 0 else ms.PYNATIVE_MODE)
    if cfg.device_target == "CPU":
        logger.info("oneDNN instruction set: %s (environment variable ONEDNN_MAX_CPU_ISA)",
                    os.environ["ONEDNN_MAX_CPU_ISA"])
