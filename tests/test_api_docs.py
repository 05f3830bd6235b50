"""docs/api.md: every block of shell and Python is run on a live service, and its tables are the code's."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from service.protocols.options import PARAMETER_NAMES
from service.protocols.status import STATUS
from tests.serving import Service, run_service

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
RUNNABLE = [
    pytest.param(language, block, id=f"{language} {number}")
    for number, (language, block) in enumerate(BLOCKS)
    if "grpcurl" not in block
]
# The command as an installation has it; curl that fails where the server says an error.
COMMAND = f'resnet-serve() {{ "{sys.executable}" -m service "$@"; }}\n'
STRICT_CURL = (
    'set -euo pipefail\ncurl() { command curl --fail-with-body --silent --show-error "$@"; echo; }\n'
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with run_service(jobs_dir=tmp_path_factory.mktemp("jobs")) as running:
        yield running


def make_command(language: str, block: str) -> list[str]:
    if language == "python":
        return [sys.executable, "-c", block]
    is_strict = "# answers 4" not in block
    return ["bash", "-c", COMMAND + (STRICT_CURL if is_strict else "") + block]


@pytest.mark.parametrize(("language", "block"), RUNNABLE)
def test_an_example_works(service: Service, language: str, block: str) -> None:
    if "tritonclient" in block and importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed")
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    http = service.http.removeprefix("http://")
    command = make_command(
        language, block.replace("localhost:8080", http).replace("localhost:8081", service.grpc)
    )
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert done.stdout


def list_grpcurl_calls() -> list[list[str]]:
    """The arguments of every grpcurl in the document, as a shell reads them."""
    script = "".join(block for language, block in BLOCKS if language == "sh" and "grpcurl" in block)
    tell = 'grpcurl() { printf "%s\\0" "$@"; printf "\\n"; }\n'
    done = subprocess.run(
        ["bash", "-c", tell + script], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    return [line.decode().split("\0")[:-1] for line in done.stdout.splitlines()]


def call_as_grpcurl(channel: grpc.Channel, method: str, content: str) -> str:
    """What grpcurl does: find the method by reflection, send JSON, return JSON."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service, _, name = method.partition("/")
    found = pool.FindServiceByName(service).methods_by_name[name]
    request = json_format.Parse(content, GetMessageClass(found.input_type)())
    call: Any = channel.unary_unary(
        f"/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(found.output_type).FromString,
    )
    return json_format.MessageToJson(call(request, timeout=30))


def test_the_examples_of_grpcurl_are_what_reflection_offers(service: Service) -> None:
    calls = list_grpcurl_calls()
    with grpc.insecure_channel(service.grpc) as channel:
        listed = ProtoReflectionDescriptorDatabase(channel).get_services()
        for arguments in calls:
            assert arguments[0] == "-plaintext"
            content = arguments[arguments.index("-d") + 1] if "-d" in arguments else "{}"
            if arguments[-1] != "list":
                assert arguments[-1].partition("/")[0] in listed
                assert len(call_as_grpcurl(channel, arguments[-1], content)) > 2
    assert ["-plaintext", "localhost:8081", "list"] in calls
    assert len(calls) >= 5


def test_every_protocol_has_examples() -> None:
    examples = "".join(block for _, block in BLOCKS)
    for word in (
        "curl ",
        "service.client",
        "tritonclient.http",
        "tritonclient.grpc",
        "grpcurl",
        "grpc://",
        "resnet-serve ",
    ):
        assert word in examples


def test_the_table_of_errors_is_the_codes() -> None:
    rows = [f"| `{slug}` | {one.http} | {one.grpc} | {one.title} |" for slug, one in sorted(STATUS.items())]
    found = [line for line in TEXT.splitlines() if re.match(r"^\| `[a-z-]+` \| \d{3} \|", line)]
    assert found == rows, "the table in docs/api.md must be these lines:\n" + "\n".join(rows)


def test_the_table_of_options_has_every_option() -> None:
    table = TEXT[TEXT.index("### Options") : TEXT.index("### Headers")]
    assert tuple(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == PARAMETER_NAMES
