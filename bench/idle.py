"""What the service takes at rest: `python -m bench.idle`. Start to the first answer, memory, processor time.

Memory is the proportional set size of all its processes, after a few hundred images at 8 callers; the
processor time is that of SECONDS without a request.
"""

import argparse
import json
import time
from pathlib import Path

from bench.images import make_images_for
from bench.load import Endpoint, run_load
from bench.machine import describe_machine
from bench.servers import find_port, run_server
from bench.serving import serve_command
from models.repository import ModelRepository
from service.settings import ZOO

SECONDS = 20.0
LOAD_S = 5.0


def main() -> None:
    """Measure and print; with --out, keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repository", type=Path, default=ZOO)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    version = ModelRepository([asked.repository]).find(asked.model)
    images = make_images_for(version.card.preprocess.crop_px)
    endpoint = Endpoint(find_port(), "/v1/classify")
    command = serve_command(endpoint.port, asked.repository, version.reference)
    told = describe_machine() | {"model": version.reference}
    with run_server(command, endpoint, images[0]) as server:
        told |= {"start_s": server.start_s, "pss_at_start_mb": round(server.pss_mb(), 1)}
        run_load(endpoint, images, 8, LOAD_S)
        told["pss_after_load_mb"] = round(server.pss_mb(), 1)
        time.sleep(2.0)
        cpu_s = server.cpu_s()
        time.sleep(SECONDS)
        told["idle_cores"] = round((server.cpu_s() - cpu_s) / SECONDS, 4)
    print(json.dumps(told, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
