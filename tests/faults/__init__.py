"""Faults made on a real server without a proxy. `make test-faults` makes them last longer."""

import os

FAULT_SECONDS = float(os.environ.get("FAULT_SECONDS", "0"))
