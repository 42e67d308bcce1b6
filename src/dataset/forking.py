"""Processes that read pictures, and signals."""
import contextlib
import signal

GROUP_SIGNALS = {signal.SIGTERM, signal.SIGINT}  # that a cluster, mpirun or a terminal sends to all processes of a run


@contextlib.contextmanager
def out_of_reach():
    """A block in which SIGTERM and SIGINT wait; the processes that start in it never see them.

    They end with their parent. Ending before it, they would take away the data of the step that it is to finish, and MindSpore
    ends a program whose workers die.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
