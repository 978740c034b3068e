"""``python -m lesionzarr``: the command line."""

import sys

from lesionzarr.cli import main

if __name__ == "__main__":
    sys.exit(main())
