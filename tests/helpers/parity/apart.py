"""Running a function in a process of its own, whose memory is freed when it ends."""
import concurrent.futures
import multiprocessing


def apart(function, *arguments):
    """The result of `function`, defined at the top level of a module, in a new process."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_up) as pool:
        return pool.submit(function, *arguments).result()


def _set_up():
    """As the scripts do, in graph mode: where freed memory is not kept, a fifth of the CPU time
    goes into new pages."""
    from src.environment import set_environment
    set_environment()  # before MindSpore is imported
    from src.config import Config, with_settings
    from src.device import set_up_device
    from src.distributed import SingleProcess

    set_up_device(with_settings(Config(), {"device_target": "CPU"}), SingleProcess())
