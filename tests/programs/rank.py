"""rank.py SOCKET: what mpirun starts in the place of a script that the tests run in copies, see tests/helpers/ranks.py."""
import os
import sys
from multiprocessing.connection import Client

if __name__ == "__main__":
    with Client(sys.argv[1]) as connection:
        connection.send(dict(os.environ))
        sys.exit(connection.recv())
