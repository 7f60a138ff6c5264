"""`python -m gembackend` is the command `gembackend`."""

import sys

from gembackend.cli import main

if __name__ == "__main__":
    sys.exit(main())
