"""schemathesis over the OpenAPI document: `python -m tests.service.protocols.fuzz [EXAMPLES] [URL]`.

EXAMPLES is for each operation, on top of its coverage cases. Without a URL a frontend is started, with a
worker that answers everything, so that what is tested is the protocol.
"""

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.service.frontends import run_frontend

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
# Bytes that the schema allows need not be an image, and some options need others: no schema can say so.
NOT_SAYABLE = "positive_data_acceptance"
# A form's part is bytes whatever the schema calls it: a number in place of an image is an image that fails,
# and /v1/batch answers with a line that says so.
CONFIG = """
[[operations]]
include-path = "/v1/batch"
checks.negative_data_rejection.enabled = false
"""


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """What schemathesis said, and how it ended: 0 is no failure."""

    code: int
    cases: int
    text: str


def fuzz(url: str, examples: int) -> FuzzReport:
    """Every check but one, on every operation of `url`."""
    arguments = ["--max-examples", str(examples), "--exclude-checks", NOT_SAYABLE]
    quiet = ["--no-color", "--warnings", "off", "--continue-on-failure", "--generation-database", "none"]
    with tempfile.TemporaryDirectory() as folder:  # it leaves its findings where it runs
        (Path(folder) / "schemathesis.toml").write_text(CONFIG)
        done = subprocess.run(
            [SCHEMATHESIS, "run", f"{url}/openapi.json", *arguments, *quiet],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    generated = re.search(r"(\d[\d,]*) generated", done.stdout)
    cases = int(generated[1].replace(",", "")) if generated else 0
    return FuzzReport(done.returncode, cases, done.stdout + done.stderr)


def fuzz_frontend(examples: int) -> FuzzReport:
    """The same on a frontend of its own."""
    with run_frontend(log_level="error", max_image_bytes="1000000") as frontend:
        frontend.add_worker(1)
        return fuzz(frontend.url, examples)


def main() -> None:
    """Exit code 1 where anything failed."""
    examples = int(sys.argv[1]) if len(sys.argv) > 1 else 350
    began = time.monotonic()
    report = fuzz(sys.argv[2], examples) if len(sys.argv) > 2 else fuzz_frontend(examples)
    print(report.text)
    print(f"{report.cases} cases in {time.monotonic() - began:.0f} s")
    raise SystemExit(report.code)


if __name__ == "__main__":
    main()
