"""What every program does first and last."""
import sys
import traceback

from src.distributed import SingleProcess, join_processes
from src.errors import UserError, one_line


def run_main(main) -> int:
    """Call `main()` and return the exit status: 1 after a UserError, which is printed as one line, 130 after Ctrl-C.

    Other exceptions are defects and keep their traceback.
    """
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def run_together(main) -> int:
    """`run_main` for a `main(group)` that may be one of several processes, see src.distributed: if one fails, all end."""
    group = SingleProcess()

    def joined():
        nonlocal group
        group = join_processes()
        return main(group)

    try:
        status = run_main(joined)
    except Exception:
        if group.size == 1:
            raise
        traceback.print_exc()
        status = 1
    return group.fail(status) if status else 0
