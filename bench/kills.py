"""kill -9 of a worker every 2 s under load, and what callers saw: `python -m bench.kills --seconds 300`.

The load and the killing are those of tests/faults/test_kills.py; told besides: how long each successor took.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from bench.machine import describe_machine
from tests.faults import test_kills
from tests.faults.callers import Ledger, expect_counts, read_log
from tests.serving import run_service


def main() -> None:
    """Kill for so long; print, and keep the figures with --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--out", type=Path, help="keep the figures as JSON")
    given = parser.parse_args()
    test_kills.DEADLINE_S = 10.0
    with run_service(max_wait_ms=9_000) as service:
        ledger = Ledger.open(service)
        began = time.monotonic()
        kills = asyncio.run(test_kills.load_and_kill(service, ledger, given.seconds))
        seconds = time.monotonic() - began
        respawns = sorted(float(str(line["took_s"])) for line in read_log(service, "worker is up")[1:])
        counts = ledger.count()
        expect_counts(service, counts)
    result = {
        "seconds": round(seconds, 1),
        "kills": kills,
        "codes": counts,
        "wrong_answers": len(ledger.wrong),
        "metrics_agree": True,  # else expect_counts had raised
        "deadline_s": test_kills.DEADLINE_S,
        "respawn_s": {"median": respawns[len(respawns) // 2], "max": respawns[-1], "all": respawns},
        "machine": describe_machine(),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    if given.out:
        given.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
