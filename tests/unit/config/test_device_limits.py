"""src/config/checks.py: limits of a device's operators, and that every run checks them."""
import pytest

from src.config import Config, with_settings
from src.config.checks import MAX_NMS_BOXES, check_device_limits
from src.errors import UserError
from src.run.device import set_up_device
from src.run.distributed import SingleProcess


def config(device, **settings):
    return with_settings(Config(), {"device_target": device, **{f"rpn_head.{key.replace('__', '.')}": value
                                                                for key, value in settings.items()}})


@pytest.mark.parametrize("device", ["Ascend", "GPU"])
@pytest.mark.parametrize("use", ["train_proposal", "test_proposal"])
def test_boxes_of_a_level(device, use):
    check_device_limits(config(device, **{f"{use}__pre_nms_top_n": MAX_NMS_BOXES}))
    with pytest.raises(UserError) as error:
        check_device_limits(config(device, **{f"{use}__pre_nms_top_n": 2865}))
    assert str(error.value) == (f"rpn_head.{use}.pre_nms_top_n is 2865, but on {device} at most 2864 boxes can suppress each "
                                "other; lower it.")


def test_boxes_of_all_levels():
    """NMS combines the boxes of all levels only if its threshold is set."""
    settings = {"train_proposal__post_nms_top_n": 3000}
    check_device_limits(config("Ascend", **settings))
    with pytest.raises(UserError, match="^rpn_head.train_proposal.post_nms_top_n is 3000, but on Ascend at most 2864 boxes"):
        check_device_limits(config("Ascend", **settings, train_proposal__joint_nms_thresh=0.7))


def test_processors_have_no_limit():
    check_device_limits(config("CPU", test_proposal__pre_nms_top_n=6000, test_proposal__post_nms_top_n=6000,
                               test_proposal__joint_nms_thresh=0.7))


def test_a_run_is_refused():
    """The check runs before the device is used. The device is missing here, but the error message names the setting."""
    with pytest.raises(UserError, match="pre_nms_top_n is 4000, but on Ascend"):
        set_up_device(config("Ascend", test_proposal__pre_nms_top_n=4000), SingleProcess())
