"""Every setting of the service: one frozen Settings, built once from the command line and the environment.

The only module that reads the environment. An unknown or invalid name is refused with a sentence that says
what to write instead.
"""

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

PREFIX = "SERVE_"
ZOO = Path(__file__).resolve().parent.parent / "models" / "zoo"

Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Origins = Annotated[str, Field(pattern=r"^(\*|(https?://[^/,\s]+(, ?https?://[^/,\s]+)*)?)$")]
PositiveFloat = Annotated[float, Field(gt=0)]


class BadSettings(ValueError):
    """A setting is unknown or invalid; the message is one sentence per mistake."""


def _says(default: Any, meaning: str, *, is_secret: bool = False) -> Any:
    return field(default=default, metadata={"meaning": meaning, "secret": is_secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Names in lower case here; `http_port` is SERVE_HTTP_PORT in the environment, --http-port in words."""

    host: str = _says("127.0.0.1", "address to listen on; 0.0.0.0 for every interface")
    http_port: Port = _says(8080, "HTTP port; 0 picks a free one")
    grpc_port: Port = _says(8081, "gRPC port; 0 picks a free one")
    admin_port: Port = _says(
        8082,
        "admin port, on loopback, closed without SERVE_ADMIN_TOKEN, SERVE_API_KEYS, SERVE_TLS_CLIENT_CA; "
        "0 picks one",
    )
    model_repository: str = _says(
        f"{ZOO}:./repository", "directories of model versions, separated by colons; missing ones are skipped"
    )
    models: str = _says("", "names or name@version to serve, separated by commas; empty serves every name")
    default_model: str = _says("cifar10", "the model that answers when a request names none")
    devices: str = _says("auto", "cpu, cuda:0,cuda:1, MIG UUIDs, or auto: every GPU, else the CPU")
    engine: Literal["auto", "onnx", "torch"] = _says(
        "auto", "auto: ONNX Runtime (onnx) on the CPU, torch on a GPU"
    )
    workers_per_device: Positive = _says(1, "worker processes per model and device")
    frontends: Positive = _says(1, "frontend processes sharing the ports")
    worker_threads: Annotated[int, Field(ge=0)] = _says(
        0, "compute threads of a worker on the CPU; 0 means one per available core"
    )
    precision: Literal["fp32", "int8"] = _says("fp32", "precision when a request names none")
    int8_max_loss: float | None = _says(
        None, "points of error that int8 may cost, by the card, to be used when a request names none"
    )
    max_image_bytes: Positive = _says(20_000_000, "largest encoded image")
    max_pixels: Positive = _says(50_000_000, "most pixels of an image, checked before decoding")
    max_view_pixels: Positive = _says(4_000_000, "most pixels of one view, checked before resizing")
    max_decode_bytes: Positive = _says(
        1_000_000_000, "memory for all images being decoded at once in one worker"
    )
    max_batch_bytes: Positive = _says(2 << 30, "largest body of /v1/batch")
    max_batch_items: Positive = _says(1_000_000, "most images in one batch")
    max_version_bytes: Positive = _says(2 << 30, "largest model version sent to the admin port, unpacked")
    decode_in: Literal["auto", "worker", "processes"] = _says(
        "auto", "where images are decoded; processes: a bad image ends no worker; auto: processes on a GPU"
    )
    max_inflight_bytes: Positive = _says(
        256_000_000, "encoded images held by one frontend at once; over it requests are answered 503"
    )
    max_wait_ms: PositiveFloat = _says(
        2_000.0, "longest predicted wait in the queue; over it requests are answered 503"
    )
    batch_budget_ms: PositiveFloat = _says(50.0, "most predicted milliseconds of one batch")
    max_batch_views: Positive = _says(64, "most views in one batch")
    bulk_slice_ms: PositiveFloat = _says(50.0, "most predicted milliseconds of one batch of bulk work")
    request_timeout_s: PositiveFloat = _says(30.0, "deadline of a request that states none")
    max_request_timeout_s: PositiveFloat = _says(300.0, "longest deadline a request may ask for")
    header_timeout_s: PositiveFloat = _says(10.0, "time to send a request's headers")
    body_timeout_s: PositiveFloat = _says(30.0, "longest silence within a request's body or a gRPC message")
    keepalive_timeout_s: PositiveFloat = _says(
        75.0, "idle time after which an HTTP connection, or a stream of images over gRPC, is closed"
    )
    max_connections: Positive = _says(
        4_096, "connections per frontend, of HTTP and as many of gRPC, where the limit of open files allows"
    )
    drain_delay: Annotated[float, Field(ge=0)] = _says(
        0.0, "seconds to serve on after SIGTERM while not ready, for balancers to look elsewhere"
    )
    drain_timeout: PositiveFloat = _says(30.0, "seconds to finish accepted requests after that")
    degrade: bool = _says(False, "under pressure use a cheaper view policy before answering 503")
    jobs_dir: Path = _says(Path("./jobs"), "where batch jobs are kept")
    jobs_quota_bytes: Positive = _says(20 << 30, "most bytes of all batch jobs together")
    jobs_reserve_bytes: Annotated[int, Field(ge=0)] = _says(
        256 << 20, "bytes of that disk that batch jobs leave free"
    )
    jobs_retention_s: PositiveFloat = _says(604_800.0, "how long finished batch jobs are kept")
    batch_roots: str = _says(
        "", "folders a batch may name as its source, as URLs separated by commas: file:///data,s3://bucket/x"
    )
    log_format: Literal["auto", "json", "text"] = _says("auto", "auto: text on a terminal, else JSON")
    log_level: Literal["debug", "info", "warning", "error"] = _says("info", "least severe level logged")
    api_keys: str = _says(
        "", "file of API keys (`resnet-serve keys`), from then on required; empty asks nobody for a key"
    )
    tls_cert: str = _says("", "certificate chain (PEM) for HTTP and gRPC; empty speaks without TLS")
    tls_key: str = _says("", "the certificate's key (PEM), without a passphrase")
    tls_client_ca: str = _says(
        "", "authorities (PEM) one of which must have signed a caller's certificate; empty asks for none"
    )
    cors_origins: Origins = _says(
        "", "origins whose pages may read answers, separated by commas, or *; empty allows none"
    )
    admin_token: str = _says(
        "", "bearer token of the admin port, beside API keys of the scope admin", is_secret=True
    )

    def with_secrets_hidden(self) -> dict[str, str]:
        """Every setting as text for the log, secrets as ***."""
        shown = {}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            shown[one.name] = "***" if one.metadata["secret"] and value else str(value)
        return shown

    def to_json(self) -> bytes:
        """The form in which the supervisor hands settings to its children."""
        return _ADAPTER.dump_json(self)

    @staticmethod
    def from_json(text: str | bytes) -> "Settings":
        """The inverse of to_json."""
        return _ADAPTER.validate_json(text)


_ADAPTER: TypeAdapter[Settings] = TypeAdapter(Settings)


def list_names() -> list[str]:
    """The settings' names in lower case, in the order of the documentation."""
    return [one.name for one in dataclasses.fields(Settings)]


def load_settings(
    overrides: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Defaults, then SERVE_* of the environment, then `overrides` (lower-case names, from the command line).

    Raises BadSettings with one sentence per mistake.
    """
    env = os.environ if environment is None else environment
    given = {key[len(PREFIX) :].lower(): value for key, value in env.items() if key.startswith(PREFIX)}
    given |= dict(overrides or {})
    mistakes = [_unknown(name) for name in given if name not in list_names()]
    if mistakes:
        raise BadSettings("\n".join(mistakes))
    try:
        return _ADAPTER.validate_python(given)
    except ValidationError as err:
        raise BadSettings("\n".join(_invalid(dict(one)) for one in err.errors())) from err


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, list_names(), n=1, cutoff=0.5)
    hint = f"did you mean {PREFIX}{near[0].upper()}?" if near else "docs/operations.md lists them all"
    return f"{PREFIX}{name.upper()} is not a setting; {hint}"


def _invalid(error: dict[str, Any]) -> str:
    name = str(error["loc"][0])
    meaning = Settings.__dataclass_fields__[name].metadata["meaning"]
    shown = "***" if Settings.__dataclass_fields__[name].metadata["secret"] else repr(error["input"])
    return f"{PREFIX}{name.upper()}={shown} is not valid: {error['msg']} ({meaning})"
