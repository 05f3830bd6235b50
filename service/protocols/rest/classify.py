"""POST /v1/classify: the one route whose cost per request decides how much the service serves.

Its requests are cycles of their own: called by their connection as bytes come and by the Classifier when the
answer is there, without a task, a future or a timer for each. What every protocol must do is still done once:
options, deadlines, admission and errors are the functions that all others use.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import parse_qsl

from service.admission import Lease
from service.classifier import Cancellable
from service.errors import BadRequest, RequestTimeout, ServiceError, make_stopped
from service.flights import Landing
from service.metrics import ABORTED
from service.protocols.base import ProtocolContext
from service.protocols.options import parse_deadline, parse_options
from service.protocols.rest.answers import encode_classification, format_server_timing
from service.protocols.rest.body import FORM_BYTES, check_headers, check_size, is_form, read_image
from service.protocols.rest.cycle import Cycle
from service.protocols.rest.door import Door
from service.protocols.rest.exchange import CLASSIFY_PATH, Answer, Exchange
from service.protocols.rest.problems import encode_problem
from service.types import Classification, ClassifyOptions, ClassifyRequest

MAX_QUERY_BYTES = 2048


@lru_cache(maxsize=256)
def parse_query(query: bytes) -> dict[str, str]:
    """The parameters of a query string; raises BadRequest for one given twice. Do not change the result."""
    if len(query) > MAX_QUERY_BYTES:
        raise BadRequest(f"the query is longer than {MAX_QUERY_BYTES} bytes", "query")
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("a parameter is given twice", "query")
    return found


@lru_cache(maxsize=256)
def _parse_query_options(query: bytes) -> ClassifyOptions:
    return parse_options(parse_query(query))


class ClassifyConnection(Protocol):
    """What a cycle asks of its connection."""

    @property
    def fresh_bytes(self) -> int:
        """How much came at once with what is being parsed now."""
        ...

    def respond(self, cycle: Cycle, answer: Answer) -> None:
        """Send a whole answer."""
        ...

    def ask_for_body(self) -> None:
        """100 Continue."""
        ...

    def limit_body(self, deadline: float) -> None:
        """Cut the body off at time.monotonic() `deadline`."""
        ...


@dataclass(frozen=True, slots=True)
class ClassifyHead:
    """A request up to its body: `query` as it came, and what its connection knows of it."""

    exchange: Exchange
    query: bytes
    expects_continue: bool
    keep_alive: bool


class ClassifyDesk:
    """Opens a cycle for each request; `door` knows what every request to this server has in common."""

    def __init__(self, context: ProtocolContext, door: Door) -> None:
        self.classifier, self.settings, self.door = context.classifier, context.settings, door

    def open(self, connection: ClassifyConnection, head: ClassifyHead) -> "ClassifyCycle":
        """A request whose headers are here."""
        return ClassifyCycle(self, connection, head)


class ClassifyCycle:
    """One image from its headers to its answer; see cycle.Cycle for who calls what.

    Nothing raises: errors are answers, for the parser would take an exception for bad HTTP.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_deadline",
        "_desk",
        "_exchange",
        "_flight",
        "_is_begun",
        "_is_over",
        "_is_whole",
        "_lease",
        "_options",
        "_query",
        "_size_bytes",
        "keep_alive",
        "response_complete",
        "waiting_for_100_continue",
    )
    is_head = False

    def __init__(self, desk: ClassifyDesk, connection: ClassifyConnection, head: ClassifyHead) -> None:
        self._desk, self._connection = desk, connection
        self._exchange, self._query = head.exchange, head.query
        self.waiting_for_100_continue, self.keep_alive = head.expects_continue, head.keep_alive
        self.response_complete = False  # the connection's word
        self._is_begun = self._is_whole = self._is_over = False
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._lease: Lease | None = None
        self._flight: Cancellable | None = None

    def start(self) -> None:
        """Check what can be checked without the body, and want it."""
        self._is_begun = True
        try:
            self._check()
        except ServiceError as error:
            self._tell(error)
        except Exception:
            self._report()
        else:
            if self.waiting_for_100_continue:
                self.waiting_for_100_continue = False
                self._connection.ask_for_body()
            if self._is_whole:
                self._launch()

    def feed(self, chunk: bytes) -> None:
        """More of the body."""
        if self._is_over:
            return
        self._chunks.append(chunk)
        self._size_bytes += len(chunk)
        lease = self._lease
        if lease is not None and self._size_bytes > lease.size_bytes:
            try:
                check_size(self._size_bytes, self._limit_bytes())
                lease.grow(self._size_bytes - lease.size_bytes)
            except ServiceError as error:
                self._tell(error)

    def end(self) -> None:
        """The body is whole."""
        self._is_whole = True
        if self._is_begun and not self._is_over:
            self._launch()

    def cut(self) -> None:
        """The rest of the body is not waited for."""
        self.keep_alive = False
        if self._is_begun and not self._is_over:
            self._tell(RequestTimeout(f"the body stopped after {self._size_bytes} bytes"))

    def lose(self) -> None:
        """The caller has gone: nobody waits for the answer."""
        if not self._is_over:
            self._let_go()
            self._desk.door.end(self._exchange, CLASSIFY_PATH, ABORTED)

    def stop(self) -> None:
        """The server stops before the answer is there."""
        if not self._is_over:
            self._tell(make_stopped())

    def _check(self) -> None:
        desk, exchange = self._desk, self._exchange
        desk.door.admit(exchange)
        options = self._options = _parse_query_options(self._query)
        exchange.model = options.model
        self._deadline = parse_deadline(exchange.text(b"request-timeout"), desk.settings)
        declared_bytes = check_headers(exchange, desk.settings.max_image_bytes)
        if (
            declared_bytes > self._connection.fresh_bytes
        ):  # what is here already is asked for once, by _launch
            desk.classifier.check_admission(options, self._deadline, exchange.caller)
        self._connection.limit_body(self._deadline)
        if self._size_bytes > declared_bytes:
            check_size(self._size_bytes, self._limit_bytes())
        self._lease = desk.classifier.reserve(max(declared_bytes, self._size_bytes))

    def _launch(self) -> None:
        exchange, desk = self._exchange, self._desk
        try:
            body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            image, fields = read_image(body, exchange, desk.settings.max_image_bytes)
            del body  # from here the image is held once
            if fields:
                self._options = _merge(parse_query(self._query), fields)
                exchange.model = self._options.model
            request = ClassifyRequest(
                image, exchange.request_id, self._deadline, self._options, exchange.caller
            )
            self._flight = desk.classifier.launch(request, self._land)
        except ServiceError as error:
            self._tell(error)
        except Exception:
            self._report()

    def _land(self, landing: Landing) -> None:
        self._flight = None
        if self._is_over:
            return
        if isinstance(landing, ServiceError):
            self._tell(landing)
            return
        try:
            answer = _write(landing)
        except Exception:
            self._report()
        else:
            self._answer(answer)

    def _tell(self, error: ServiceError) -> None:
        self._answer(encode_problem(error, self._exchange.request_id))

    def _report(self) -> None:
        self._answer(self._desk.door.report(self._exchange))

    def _answer(self, answer: Answer) -> None:
        self._let_go()
        self._desk.door.dress(self._exchange, answer)
        self._connection.respond(self, answer)
        self._desk.door.end(self._exchange, CLASSIFY_PATH, str(answer[0]))

    def _let_go(self) -> None:
        self._is_over = True
        self._chunks.clear()
        if self._lease is not None:
            self._lease.release()
        if self._flight is not None:
            self._flight.cancel()
            self._flight = None

    def _limit_bytes(self) -> int:
        return self._desk.settings.max_image_bytes + (FORM_BYTES if is_form(self._exchange) else 0)


def _merge(query: dict[str, str], fields: dict[str, str]) -> ClassifyOptions:
    twice = sorted(query.keys() & fields.keys())
    if twice:
        raise BadRequest(f"{twice[0]} is given in the query and in the form", twice[0])
    return parse_options({**query, **fields})


def _write(answer: Classification) -> Answer:
    body = encode_classification(answer)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", answer.request_id.encode()),
        (b"server-timing", format_server_timing(answer.timings_ms)),
    ]
    return 200, headers, body


def describe_parameters() -> list[dict[str, Any]]:
    """The query parameters for the OpenAPI document."""
    flag = {"type": "boolean", "default": False}
    model = {"type": "string", "pattern": r"^[A-Za-z0-9._-]{1,128}(@[0-9]{1,9})?$"}
    tta = {"type": "string", "pattern": "^[a-z0-9_]{1,32}$"}
    scales = {"type": "string", "pattern": "^[0-9]{1,4}(,[0-9]{1,4}){0,7}$"}
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("model", model, "name or name@version; the default model where absent"),
        ("top_k", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5}, "how many classes"),
        ("tta", tta, "view policy; the card's default where absent"),
        ("scales", scales, "the paper's scales for multi_scale, such as 224,256,384"),
        ("merge", {"type": "string", "enum": ["logits", "probabilities"]}, "how views' scores are merged"),
        ("pool", {"type": "string", "enum": ["window", "global"]}, "how the dense policies pool"),
        ("map", flag, "add the activation map"),
        ("class", {"type": "integer", "minimum": 0}, "class of the map; the best one where absent"),
        ("logits", flag, "add the logits"),
        ("precision", {"type": "string", "enum": ["fp32", "int8"]}, "precision of the engine"),
        ("priority", {"type": "string", "enum": ["interactive", "bulk"]}, "bulk yields to interactive"),
    ]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": meaning}
        for name, schema, meaning in rows
    ]
