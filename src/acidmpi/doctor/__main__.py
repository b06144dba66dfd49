"""`python -m acidmpi.doctor`."""

import sys

from acidmpi.config.launched import status_of
from acidmpi.doctor.cli import main

if __name__ == "__main__":
    sys.exit(status_of(main))
