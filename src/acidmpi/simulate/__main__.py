"""Entry point of `python -m acidmpi.simulate`."""

import sys

from acidmpi.config.launched import status_of
from acidmpi.simulate.cli import main

if __name__ == "__main__":
    sys.exit(status_of(main))
