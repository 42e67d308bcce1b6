"""Running a function in a process of its own, whose gigabytes go with it."""
import concurrent.futures
import multiprocessing


def apart(function, *arguments):
    """What `function`, of a module's top level, gives in a new process."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_up) as pool:
        return pool.submit(function, *arguments).result()


def _set_up():
    import mindspore as ms  # in the environment of the first process
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
