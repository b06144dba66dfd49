"""`python -m acidmpi.report`."""

import sys

from acidmpi.config.launched import status_of
from acidmpi.report.cli import main

if __name__ == "__main__":
    sys.exit(status_of(main))
