"""A local Ray cluster of a head and two workers, one of them killed half-way: `make test-ray`."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.service.offline.pictures import make_pictures, write_pictures
from tests.serving import ROOT

RAY = os.environ.get("RAY", "")
IMAGES, SHARD_IMAGES, OPTIONS = 3_000, 100, ("--tta", "ten_crop")
STORE_BYTES = "100000000"

pytestmark = [
    pytest.mark.skipif(not RAY, reason="needs Ray in an environment of its own: make test-ray"),
    pytest.mark.timeout(1800),
]


def find_port() -> int:
    """A free one below those that the system gives to whoever asks for any, as Ray's own processes do."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def wait_until(is_so: Callable[[], bool], within_s: float = 300) -> None:
    ends = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.2)


class Cluster:
    """Nodes are groups of processes of this machine; a killed one loses all of them at once."""

    def __init__(self, folder: Path) -> None:
        self._environment = os.environ | {
            "PATH": f"{Path(RAY).absolute()}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",  # a cluster of this machine, gone in a minute
            "RAY_raylet_start_wait_time_s": "120",
        }
        self._folder = folder
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._gcs, self._dashboard = find_port(), find_port()

    def start(self) -> None:
        """A head that scores nothing."""
        ports = ["--port", str(self._gcs), "--dashboard-port", str(self._dashboard)]
        self._start("--head", *ports, "--num-cpus", "0", "--temp-dir", str(self._folder))
        wait_until(lambda: self._call("status").returncode == 0)

    def add_worker(self) -> subprocess.Popen[bytes]:
        """One more node with one core, once it has joined."""
        node = self._start("--address", f"127.0.0.1:{self._gcs}", "--num-cpus", "1")
        workers = len(self._nodes) - 1
        wait_until(lambda: f"/{workers}.0 CPU" in self._call("status").stdout)
        return node

    def submit(self, *words: str) -> subprocess.Popen[str]:
        """`ray job submit` of the pipeline."""
        address = f"http://127.0.0.1:{self._dashboard}"
        command = ["job", "submit", "--address", address, "--working-dir", ".", "--"]
        return subprocess.Popen(
            [f"{RAY}/ray", *command, "python", "-m", "deploy.ray", *words],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """kill -9 of every process of a node."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        """The workers, then the head."""
        for node in reversed(self._nodes):
            self.kill(node)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [f"{RAY}/ray", "start", "--block", "--object-store-memory", STORE_BYTES, *words]
        log = (self._folder / f"node-{len(self._nodes)}.log").open("wb")
        with log:
            node = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._nodes.append(node)
        return node

    def _call(self, word: str) -> subprocess.CompletedProcess[str]:
        command = [f"{RAY}/ray", word, "--address", f"127.0.0.1:{self._gcs}"]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # short, as Unix sockets want it
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def test_a_killed_worker_loses_no_image(cluster: Cluster, tmp_path: Path) -> None:
    pictures = make_pictures(IMAGES) | {"0100.png": b"broken"}
    folder, out = write_pictures(tmp_path / "in", pictures), tmp_path / "out"
    cluster.add_worker()
    victim = cluster.add_worker()
    job = cluster.submit(str(folder), str(out), "--shard-images", str(SHARD_IMAGES), *OPTIONS)
    wait_until(lambda: len(list(out.glob("part-*"))) >= IMAGES // SHARD_IMAGES // 2)
    cluster.kill(victim)
    said, _ = job.communicate()
    assert job.returncode == 0, said
    command = [
        sys.executable,
        "-m",
        "service",
        "batch",
        str(folder),
        "--out",
        str(tmp_path / "alone.parquet"),
    ]
    subprocess.run([*command, *OPTIONS], check=False, capture_output=True)
    alone = pq.read_table(tmp_path / "alone.parquet")
    assert alone.num_rows == IMAGES
    assert pq.read_table(out).sort_by("index").equals(alone)
    lost = sorted(out.glob("part-*"))[::7]
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*") if path not in lost}
    for path in lost:
        path.unlink()
    job = cluster.submit(str(folder), str(out), "--shard-images", str(SHARD_IMAGES), *OPTIONS)
    said, _ = job.communicate()
    assert f"30 shards, {len(kept)} of them there already" in said
    assert pq.read_table(out).sort_by("index").equals(alone)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    print(f"{alone.num_rows} rows equal to one machine's; one of two workers killed half-way")  # for people
