"""TLS on both ports with real certificates and clients: who is believed, who is let in, what is renewed."""

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from service.__main__ import main
from service.client import Client, ClientTls
from service.client.outcome import ConnectionFailed
from service.settings import BadSettings, load_settings
from service.tls import TlsFiles, check_tls
from tests.service.access.certificates import Authority, Pair, needs_openssl
from tests.service.frontends import RunningFrontend, run_frontend, wait_for

pytestmark = needs_openssl


@dataclass(frozen=True, slots=True)
class Secured:
    """A frontend that speaks TLS with the files `pair`, which `authority` has signed."""

    frontend: RunningFrontend
    authority: Authority
    pair: Pair

    @property
    def urls(self) -> dict[str, str]:
        """Its addresses by protocol."""
        frontend = self.frontend
        return {
            "http": f"https://127.0.0.1:{frontend.http_port}",
            "grpc": f"grpcs://127.0.0.1:{frontend.grpc_port}",
        }


@contextmanager
def run_secured(folder: Path, *, is_mutual: bool) -> Iterator[Secured]:
    authority = Authority(folder)
    pair = authority.sign("server")
    client_ca = {"tls_client_ca": str(authority.cert)} if is_mutual else {}
    files = {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}
    with run_frontend(header_timeout_s="1", **files, **client_ca) as frontend:
        frontend.add_worker(1)
        yield Secured(frontend, authority, pair)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with run_secured(tmp_path_factory.mktemp("tls"), is_mutual=False) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with run_secured(tmp_path_factory.mktemp("mtls"), is_mutual=True) as running:
        yield running


def classify(url: str, tls: ClientTls) -> str:
    with Client(url, tls=tls, attempts=1, timeout_s=30) as client:
        return client.classify(b"\xff\xd8x").predictions[0].label


def show(secured: Secured, pair: Pair) -> ClientTls:
    """Believes the server, and shows `pair`."""
    return ClientTls(secured.authority.cert, pair.cert, pair.key)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_whoever_believes_the_authority_is_served(secured: Secured, protocol: str) -> None:
    assert classify(secured.urls[protocol], ClientTls(secured.authority.cert)) == "cat"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_load_is_sent_over_tls_too(secured: Secured, protocol: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"\xff\xd8x")
    arguments = ["bench", str(image), "--url", secured.urls[protocol], "--ca", str(secured.authority.cert)]
    done = CliRunner().invoke(main, [*arguments, "-c", "1", "--seconds", "0.2", "--warmup", "0", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["errors"] == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_another_authoritys_server_is_not_believed(secured: Secured, protocol: str, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed):
        classify(secured.urls[protocol], ClientTls(Authority(tmp_path, "other").cert))


def test_plain_http_is_no_way_in(secured: Secured) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{secured.frontend.http_port}/livez")


def test_versions_of_tls_before_1_2_are_refused(secured: Secured) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", secured.frontend.http_port), 20) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(sock)


def test_browsers_are_told_to_stay_with_tls(secured: Secured) -> None:
    answer = httpx.get(
        f"{secured.urls['http']}/livez", verify=ssl.create_default_context(cafile=secured.authority.cert)
    )
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_speaks_mutual_tls(mutual: Secured) -> None:
    pair = mutual.authority.sign("caller")
    image = ["--data-binary", "x", f"{mutual.urls['http']}/v1/classify"]
    believed = ["curl", "--silent", "--show-error", "--cacert", str(mutual.authority.cert)]
    shown = ["--cert", str(pair.cert), "--key", str(pair.key)]
    done = subprocess.run(
        [*believed, *shown, *image], capture_output=True, text=True, check=False, timeout=60
    )
    assert '"label":"cat"' in done.stdout, done.stderr
    done = subprocess.run([*believed, *image], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert not done.stdout


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_signed_caller_is_let_in(mutual: Secured, protocol: str) -> None:
    assert classify(mutual.urls[protocol], show(mutual, mutual.authority.sign("caller"))) == "cat"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("shown", ["none", "expired", "another authority's"])
def test_a_caller_without_a_good_certificate_is_refused(
    mutual: Secured, protocol: str, shown: str, tmp_path: Path
) -> None:
    tls = {
        "none": lambda: ClientTls(mutual.authority.cert),
        "expired": lambda: show(mutual, mutual.authority.sign("late", days=-1)),
        "another authority's": lambda: show(mutual, Authority(tmp_path, "other").sign("stranger")),
    }[shown]()
    with pytest.raises(ConnectionFailed):
        classify(mutual.urls[protocol], tls)


def read_serial(address: tuple[str, int]) -> str:
    """The certificate that a port shows, as PEM."""
    return ssl.get_server_certificate(address, timeout=20)


def test_a_renewed_certificate_is_shown_and_connections_stay(tmp_path: Path) -> None:
    with run_secured(tmp_path, is_mutual=False) as secured:
        ports = [("127.0.0.1", port) for port in (secured.frontend.http_port, secured.frontend.grpc_port)]
        old = secured.pair.cert.read_text()
        assert [read_serial(port) for port in ports] == [old, old]
        with httpx.Client(verify=ssl.create_default_context(cafile=secured.authority.cert)) as client:
            assert client.get(f"{secured.urls['http']}/livez").status_code == 200
            secured.pair.cert.write_text("broken")
            renewed = secured.authority.sign("server")
            secured.pair.key.write_bytes(renewed.key.read_bytes())
            assert client.get(f"{secured.urls['http']}/livez").status_code == 200
            assert [read_serial(port) for port in ports] == [old, old]
            secured.pair.cert.write_bytes(renewed.cert.read_bytes())
            for port in ports:
                wait_for(lambda port=port: read_serial(port) == renewed.cert.read_text(), 30.0)  # type: ignore[misc]  # a default binds it
            assert client.get(f"{secured.urls['http']}/livez").status_code == 200
        assert classify(secured.urls["http"], ClientTls(secured.authority.cert)) == "cat"
        assert classify(secured.urls["grpc"], ClientTls(secured.authority.cert)) == "cat"


def test_another_authority_is_believed_once_its_file_is_there(tmp_path: Path) -> None:
    with run_secured(tmp_path, is_mutual=True) as secured:
        (tmp_path / "next").mkdir()
        successor = Authority(tmp_path / "next", "successor")
        old, new = secured.authority.sign("caller"), successor.sign("caller")

        def is_let_in(protocol: str, pair: Pair) -> bool:
            shown, url = ClientTls(server, pair.cert, pair.key), secured.urls[protocol]
            try:
                if protocol == "grpc":
                    return classify(url, shown) == "cat"
                return httpx.get(f"{url}/livez", verify=shown.make_context(), timeout=30).status_code == 200
            except (ConnectionFailed, httpx.TransportError):
                return False

        server = tmp_path / "server-authority.pem"  # whom callers believe stays as it is
        server.write_bytes(secured.authority.cert.read_bytes())
        for protocol in secured.urls:
            assert is_let_in(protocol, old)
            assert not is_let_in(protocol, new)
        secured.authority.cert.write_text("broken")
        for protocol in secured.urls:
            assert is_let_in(protocol, old)
        secured.authority.cert.write_bytes(successor.cert.read_bytes())
        for protocol in secured.urls:
            wait_for(lambda protocol=protocol: is_let_in(protocol, new), 30.0)  # type: ignore[misc]  # a default binds it
            assert not is_let_in(protocol, old)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silence", "half a hello"])
def test_a_handshake_that_stalls_is_cut(secured: Secured, protocol: str, sent: bytes) -> None:
    port = secured.frontend.http_port if protocol == "http" else secured.frontend.grpc_port
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(sent)
        with suppress(ConnectionResetError):
            while sock.recv(1024):
                pass


def test_a_silent_grpc_connection_is_cut() -> None:
    with (
        run_frontend(header_timeout_s="1") as frontend,
        socket.create_connection(("127.0.0.1", frontend.grpc_port), 60) as sock,
        suppress(ConnectionResetError),
    ):
        while sock.recv(1024):  # what the server says first
            pass


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"tls_cert": "CERT"}, "need each other"),
        ({"tls_client_ca": "CERT"}, "needs SERVE_TLS_CERT"),
        ({"tls_cert": "CERT", "tls_key": "nowhere"}, "SERVE_TLS_KEY=nowhere"),
        ({"tls_cert": "CERT", "tls_key": "OTHER"}, "are needed"),
        ({"tls_cert": "CERT", "tls_key": "CERT"}, "are needed"),
    ],
    ids=["no key", "no certificate", "a missing file", "another's key", "no key in the file"],
)
def test_files_that_cannot_serve_end_the_start(tmp_path: Path, given: dict[str, str], sentence: str) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.sign("server"), authority.sign("other")
    files = {"CERT": str(pair.cert), "OTHER": str(other.key)}
    settings = load_settings({name: files.get(value, value) for name, value in given.items()}, {})
    with pytest.raises(BadSettings, match=sentence):
        check_tls(settings)


def test_a_key_behind_a_passphrase_is_refused_not_asked_for(tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("server")
    locked = tmp_path / "locked.key"
    change = ["openssl", "ec", "-aes256", "-passout", "pass:hush", "-in", str(pair.key), "-out", str(locked)]
    subprocess.run(change, capture_output=True, check=True)
    with pytest.raises((OSError, ValueError)):
        TlsFiles(pair.cert, locked, None).read()


def test_grpc_without_tls_is_no_way_in(secured: Secured) -> None:
    with pytest.raises(ConnectionFailed):
        classify(f"grpc://127.0.0.1:{secured.frontend.grpc_port}", ClientTls())
