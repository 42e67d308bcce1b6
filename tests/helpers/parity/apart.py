"""Running a function in a process of its own, whose memory is freed when it ends."""
import concurrent.futures

from tests.helpers.scripts import FORKS


def apart(function, *arguments):
    """The result of `function`, defined at the top level of a module, in a new process that has imported MindSpore."""
    with concurrent.futures.ProcessPoolExecutor(1, FORKS, _set_up) as pool:
        return pool.submit(function, *arguments).result()


def _set_up():
    """As the scripts do, in graph mode: where freed memory is not kept, a fifth of the CPU time
    goes into new pages."""
    from src.config import Config, with_settings
    from src.device import set_up_device
    from src.distributed import SingleProcess

    set_up_device(with_settings(Config(), {"device_target": "CPU"}), SingleProcess())
