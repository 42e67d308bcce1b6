"""Run a function in a separate process, whose memory is freed when it exits."""
import concurrent.futures
import multiprocessing


def apart(function, *arguments):
    """Return the result of `function`, a top-level function of a module, from a new process."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_up) as pool:
        return pool.submit(function, *arguments).result()


def _set_up():
    """Set up graph mode like the scripts. If freed memory is not kept, a fifth of the CPU time is spent on new memory
    pages."""
    from src.run.environment import set_environment
    set_environment()  # before MindSpore is imported
    from src.config import Config, with_settings
    from src.run.device import set_up_device
    from src.run.distributed import SingleProcess

    set_up_device(with_settings(Config(), {"device_target": "CPU"}), SingleProcess())
