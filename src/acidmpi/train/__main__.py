"""Entry point of `python -m acidmpi.train`."""

import sys

from acidmpi.config.launched import steady_output
from acidmpi.train.cli import main

if __name__ == "__main__":
    steady_output()
    sys.exit(main())
