"""Model versions sent, chosen, taken back and deleted over the admin port of a real service."""

import io
import json
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

import models
from models.card import GoldenImage
from models.repository import check_version, write_version
from service.__main__ import main
from service.listening import open_listeners
from service.settings import load_settings
from tests.serving import PHOTOGRAPHS, Service, run_service

ZOO = Path(models.__file__).parent / "zoo"
SHIPPED = ZOO / "cifar10" / "1"
CAT = (PHOTOGRAPHS / "cat.jpg").read_bytes()
TOKEN = "let me in"  # of a service that lives as long as its test
PATIENCE_S = 60.0


def make_version(folder: Path, number: int, *, is_wrong: bool = False) -> Path:
    """The shipped model under another number; a wrong one promises logits that it does not give."""
    card = check_version(SHIPPED).card
    if is_wrong:
        golden = tuple(GoldenImage(one.png, tuple(-x for x in one.logits)) for one in card.golden)
        card = replace(card, golden=golden)
    files = {name: (SHIPPED / name).read_bytes() for name in card.files}
    return write_version(folder, replace(card, version=number), files).path


def pack_zip(folder: Path, prefix: str = "") -> bytes:
    """Its files as a zip, below a folder `prefix`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(prefix + path.name, path.read_bytes())
    return packed.getvalue()


def pack_tar(members: dict[str, bytes], mode: str = "w", link: str = "") -> bytes:
    """Those members, and a symbolic link of that name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]  # mode is one of its
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return packed.getvalue()


def read_files(folder: Path) -> dict[str, bytes]:
    """Name -> bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@dataclass(frozen=True, slots=True)
class Running:
    """A service with an admin port, its client there, the folder it writes, and one for making versions."""

    service: Service
    admin: httpx.Client
    repository: Path
    workshop: Path

    def classify(self) -> int:
        """The version that answers."""
        version: int = self.service.post_image(CAT)["model"]["version"]
        return version

    def wait_version(self, number: int) -> None:
        """Until that version answers."""
        wait_for(lambda: self.classify() == number)

    def state_of(self, number: int) -> str:
        """What the service says of a version."""
        state: str = self.admin.get(f"/v1/versions/cifar10/{number}").json()["state"]
        return state

    def list_there(self) -> set[str]:
        """What lies in the repository."""
        return {str(path.relative_to(self.repository)) for path in self.repository.glob("*/*")}


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service for the tests that leave version 1 being served."""
    repository, workshop = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("workshop")
    settings = {"admin_token": TOKEN, "max_version_bytes": 4_000_000, "worker_threads": 1}
    with run_service(f"{ZOO}:{repository}", **settings) as service:
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://{service.admin}", headers=headers, timeout=60) as admin:
            yield Running(service, admin, repository, workshop)


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Bearer", TOKEN], ids=str)
def test_only_the_token_opens_the_admin_port(running: Running, token: str | None) -> None:
    headers = {} if token is None else {"authorization": token}
    answer = httpx.get(f"http://{running.service.admin}/v1/versions", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (401, "unauthenticated")


def test_admin_port_classifies_nothing_and_the_public_port_takes_no_version(running: Running) -> None:
    assert running.admin.post("/v1/classify", content=CAT).status_code == 404
    assert httpx.get(f"{running.service.http}/v1/versions").status_code == 404


def test_admin_port_is_closed_where_nobody_could_come_in() -> None:
    ports = {"http_port": "0", "grpc_port": "0", "admin_port": "0"}
    cases: list[tuple[dict[str, str], bool]] = [
        ({}, False),
        ({"admin_token": "x"}, True),
        ({"api_keys": "keys.json"}, True),
        ({"tls_client_ca": "ca.pem"}, True),
    ]
    for given, is_open in cases:
        listeners = open_listeners(load_settings(ports | given, {}))
        try:
            assert ("admin" in listeners.describe()) is is_open
        finally:
            listeners.close()


def test_version_is_pushed_served_taken_back_and_deleted(running: Running) -> None:
    path = make_version(running.workshop, 2)
    answer = running.admin.post("/v1/versions", content=pack_zip(path, "cifar10/2/"))
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/versions/cifar10/2")
    assert answer.json()["digest"] == check_version(path).digest
    running.wait_version(2)
    wait_for(lambda: running.state_of(2) == "ready")
    assert running.admin.delete("/v1/versions/cifar10/2").status_code == 409  # it is served

    again = running.admin.post(
        "/v1/versions",
        content=pack_tar({f"./{name}": data for name, data in read_files(path).items()}, "w:gz"),
    )
    assert again.status_code == 201  # the same bytes: as good as taken

    back = running.admin.post("/v1/models/cifar10/rollback").json()
    assert (back["version"], back["is_default"]) == (1, True)
    running.wait_version(1)
    serving = json.loads((running.repository / "cifar10" / "serving.json").read_bytes())
    assert serving == {"default": 1, "previous": 2}

    wait_for(lambda: running.state_of(2) == "stored")
    assert running.admin.delete("/v1/versions/cifar10/2").status_code == 204
    assert running.list_there() == {"cifar10/serving.json"}
    assert running.admin.get("/v1/versions/cifar10/2").status_code == 404


def test_version_that_computes_something_else_is_refused_while_the_old_one_serves(running: Running) -> None:
    path = make_version(running.workshop, 3, is_wrong=True)
    assert running.admin.post("/v1/versions", content=pack_zip(path)).status_code == 201
    assert running.admin.put("/v1/models/cifar10/default", json={"version": 3}).status_code == 200
    wait_for(lambda: running.state_of(3) == "refused")
    told = running.service.get_json("/v1/models/cifar10")
    assert (told["version"], told["ready"]) == (1, True)
    assert [one["version"] for one in told["refused"]] == [3]
    assert "logits differ" in told["refused"][0]["reason"]
    assert 'resnet_refused_versions{model="cifar10"} 1.0' in httpx.get(f"{running.service.http}/metrics").text
    assert running.classify() == 1
    answer = running.admin.put("/v1/models/cifar10/default", json={"version": 3})
    assert "logits differ" in answer.json()["detail"]
    assert running.admin.post("/v1/models/cifar10/rollback").json()["version"] == 1
    assert running.admin.delete("/v1/versions/cifar10/3").status_code == 204
    wait_for(lambda: running.service.get_json("/v1/models/cifar10")["refused"] == [])


def test_folder_whose_card_cannot_be_read_is_refused_by_name(running: Running) -> None:
    broken = running.repository / "cifar10" / "9"
    shutil.copytree(SHIPPED, broken)
    (broken / "card.json").write_text("{")
    wait_for(lambda: running.service.get_json("/v1/models/cifar10")["refused"] != [])
    [told] = running.service.get_json("/v1/models/cifar10")["refused"]
    assert (told["version"], running.classify()) == (9, 1)
    assert "card.json" in told["reason"]
    assert running.admin.delete("/v1/versions/cifar10/9").status_code == 204


FILES = read_files(SHIPPED)


def change_card(**changes: object) -> dict[str, bytes]:
    """The shipped version's files with another card."""
    return {**FILES, "card.json": json.dumps(json.loads(FILES["card.json"]) | changes).encode()}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param(b"", 400, "no archive", id="nothing"),
        pytest.param(b'{"name": "cifar10"}', 400, "no archive", id="JSON"),
        pytest.param(pack_tar({"../card.json": b"{}"}), 400, "outside", id="name that climbs"),
        pytest.param(pack_tar({"/card.json": b"{}"}), 400, "absolute", id="absolute name"),
        pytest.param(pack_tar(FILES, link="graph.int8.onnx"), 400, "symbolic link", id="link"),
        pytest.param(pack_tar({**FILES, "run.sh": b"rm"}), 400, "no file of a model version", id="script"),
        pytest.param(pack_tar({**FILES, "b/card.json": b"{}"}), 400, "second version", id="two folders"),
        pytest.param(pack_tar({"graph.onnx": b"x"}), 400, "no card.json", id="no card"),
        pytest.param(pack_tar(FILES)[:50_000], 400, "ends within", id="cut off"),
        pytest.param(pack_tar({"card.json": b"{"}), 422, "card.json", id="no JSON"),
        pytest.param(pack_tar(change_card(version=0)), 422, "version 0", id="no number"),
        pytest.param(
            pack_tar(change_card(name="../x")), 422, "must match", id="name that climbs in the card"
        ),
        pytest.param(
            pack_tar({**change_card(version=7), "weights.safetensors": b"damaged"}),
            422,
            "SHA-256",
            id="other weights",
        ),
        pytest.param(pack_tar(change_card(version=1)), 409, "never change", id="another version 1"),
        pytest.param(
            pack_tar({"weights.safetensors": bytes(4_000_001)}), 413, "SERVE_MAX_VERSION_BYTES", id="big"
        ),
        pytest.param(pack_tar({"weights.safetensors": bytes(900_000)}, "w:gz"), 413, "100 times", id="bomb"),
    ],
)
def test_unusable_upload_is_refused_and_leaves_nothing(
    running: Running, body: bytes, status: int, words: str
) -> None:
    before = running.list_there()
    answer = running.admin.post("/v1/versions", content=body)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    assert running.list_there() == before
    assert list((running.repository / ".uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("PUT", "/v1/models/cifar10/default", {"version": 99}, 404, id="no such version"),
        pytest.param("PUT", "/v1/models/cifar10/default", {"default": 1}, 400, id="no such field"),
        pytest.param("POST", "/v1/models/vgg/rollback", None, 404, id="no such name"),
        pytest.param("DELETE", "/v1/versions/cifar10/1", None, 409, id="the default"),
        pytest.param("DELETE", "/v1/versions/cifar10/x", None, 400, id="no number"),
    ],
)
def test_impossible_choices(running: Running, method: str, path: str, body: object, status: int) -> None:
    assert running.admin.request(method, path, json=body).status_code == status


def test_commands_push_choose_list_and_take_back(running: Running) -> None:
    def run(*arguments: str) -> Result:
        address = ["--url", f"http://{running.service.admin}", "--token", TOKEN]
        return CliRunner().invoke(main, ["versions", *address, *arguments])

    good, wrong = make_version(running.workshop, 4), make_version(running.workshop, 5, is_wrong=True)
    pushed = run("push", str(good), "--activate")
    assert (pushed.exit_code, pushed.stdout) == (0, "cifar10@4 is served and is what cifar10 means\n")
    assert running.classify() == 4
    refused = run("push", str(wrong), "--activate")
    assert refused.exit_code == 1
    assert "logits differ" in refused.stderr
    assert running.classify() == 4
    assert "refused" in run("list").stdout
    back = run("activate", "cifar10@1")
    assert back.stdout == "cifar10@1 is served and is what cifar10 means\n"
    assert run("rollback", "vgg").exit_code == 2
    wait_for(lambda: running.state_of(4) == "stored")
    assert run("remove", "cifar10@4").exit_code == run("remove", "cifar10@5").exit_code == 0
