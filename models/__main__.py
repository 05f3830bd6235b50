"""`python -m models`: import a checkpoint, list the architectures, check model versions. See models.cli."""

import sys

from models.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
