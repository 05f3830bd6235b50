"""What processes of the service say to each other, typed; service/transport.py carries it.

Two languages: work (frontend <-> worker, with an image or a map as payload) and control (supervisor <->
child, with file descriptors). MessagePack by msgspec; nothing is ever unpickled.
"""

import msgspec

from service.recruits import Role
from service.types import ClassifyOptions, Precision


class Classify(msgspec.Struct, frozen=True, array_like=True, tag="classify"):
    """Frontend -> worker; the payload is the encoded image.

    `id` is unique on its connection; `deadline` as in ClassifyRequest. `is_suspect`: it was in a decoder
    that died; the worker must run it alone. `due` is what it is ordered by, where that is not its deadline:
    the moment at which its key's share of the workers had come to it.
    """

    id: int
    request_id: str
    deadline: float
    options: ClassifyOptions
    is_suspect: bool = False
    due: float | None = None


class ClassifySlice(msgspec.Struct, frozen=True, array_like=True, tag="slice"):
    """Frontend -> worker: images that have their options and deadline in common, as so many Classify.

    Image n has the id `first` + n, the name `names[n]` and `sizes[n]` bytes of the payload, in that order.
    """

    first: int
    names: list[str]
    sizes: list[int]
    deadline: float
    options: ClassifyOptions


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Frontend -> worker: nobody waits for `id` any more. No answer follows."""

    id: int


class MapAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The activation map without its PNG, which is the frame's payload; fields as in types.ActivationMap."""

    class_index: int
    array: list[list[float]]
    box: tuple[int, int, int, int]


class Result(msgspec.Struct, frozen=True, array_like=True, tag="result"):
    """Worker -> frontend: ranked `indices` and `probabilities`; `wait_ms`: the predicted wait now.

    `seen`: the last id of this connection that is part of it; this one at least.
    """

    id: int
    indices: list[int]
    probabilities: list[float]
    tta_asked: str
    tta_used: str
    views: int
    decode_ms: float
    queue_ms: float
    infer_ms: float
    wait_ms: float
    logits: list[float] | None = None
    map: MapAnswer | None = None
    seen: int = 0


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    """Worker -> frontend: `slug` of service.errors; `wait_ms` and `seen` as in Result.

    `field`: the parameter that is wrong, of a BadRequest.
    """

    id: int
    slug: str
    detail: str
    wait_ms: float
    retry_after_s: float | None = None
    field: str | None = None
    seen: int = 0


class Replies(msgspec.Struct, frozen=True, array_like=True, tag="replies"):
    """Worker -> frontend: several answers without a payload."""

    answers: list[Result | Failure]


class Load(msgspec.Struct, frozen=True, array_like=True, tag="load"):
    """Worker -> every frontend, when its predicted wait has moved without a result to say so.

    `wait_ms`: predicted milliseconds until a request arriving now would start; `cost_ms`: what one image of
    each policy costs at the native size, measured; `drain_per_s`: images per second lately; `seen` as in
    Result.
    """

    wait_ms: float
    cost_ms: dict[str, float]
    drain_per_s: float
    seen: int


WorkMessage = Classify | Cancel | Result | Failure | Load
WorkFrame = WorkMessage | ClassifySlice | Replies  # what travels; several are taken apart where they arrive


class ServedModel(msgspec.Struct, frozen=True):
    """One version as a frontend must know it; `card_path` is read by the frontend itself."""

    name: str
    version: int
    digest: str
    card_path: str
    is_default_version: bool
    precisions: list[Precision]


class RefusedModel(msgspec.Struct, frozen=True):
    """A version in the repository that failed its checks, and why; an older one may serve on."""

    name: str
    version: int
    reason: str


class WorkerUp(msgspec.Struct, frozen=True, tag="worker-up"):
    """Supervisor -> frontend, with one fd: the connection to a warmed-up worker."""

    worker: int
    device: str
    model: ServedModel
    cost_ms: dict[str, float]


class WorkerDown(msgspec.Struct, frozen=True, tag="worker-down"):
    """Supervisor -> frontend: that worker is dead.

    `suspects`: ids, on this frontend's connection, of images that were in a decoder when it died of a signal
    of its own making; [] when nobody is to blame.
    """

    worker: int
    cause: str
    suspects: list[int]


class WorkerRetiring(msgspec.Struct, frozen=True, tag="worker-retiring"):
    """Supervisor -> frontend: send it nothing new; it finishes what it has."""

    worker: int


class ModelsChanged(msgspec.Struct, frozen=True, tag="models"):
    """Supervisor -> frontend: everything served and refused now; `default_model` is a name."""

    default_model: str
    served: list[ServedModel]
    refused: list[RefusedModel]


class ChildState(msgspec.Struct, frozen=True):
    """One child for /v1/status."""

    role: Role
    slot: int
    pid: int
    state: str  # starting | up | retiring | down
    restarts: int
    model: str = ""
    device: str = ""
    last_words: str = ""


class StateChanged(msgspec.Struct, frozen=True, tag="state"):
    """Supervisor -> frontend: the children as they are now."""

    children: list[ChildState]


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Supervisor -> child: accept nothing new, finish what was accepted, exit 0."""


class FrontendUp(msgspec.Struct, frozen=True, tag="frontend-up"):
    """Supervisor -> worker, with one fd: the connection to frontend `slot`."""

    slot: int


class StartFrontend(msgspec.Struct, frozen=True, tag="start-frontend"):
    """Supervisor -> frontend, first, with the listening sockets as fds: HTTP, gRPC, admin if open.

    `settings` is Settings.to_json(); `metrics_dir` holds the metric files of every process.
    """

    slot: int
    settings: bytes
    metrics_dir: str


class StartJobs(msgspec.Struct, frozen=True, tag="start-jobs"):
    """Supervisor -> job runner, first; fields as in StartFrontend, and `slot` is unlike every frontend's."""

    slot: int
    settings: bytes
    metrics_dir: str


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Supervisor -> worker, before StartWorker if at all: load what any model on `device` will need."""

    device: str


class StartWorker(msgspec.Struct, frozen=True, tag="start-worker"):
    """Supervisor -> worker, first but for Prepare, with one fd: its stage board.

    `version_path` is the directory of the model version; `device` is cpu or cuda:N; `threads` its cores.
    """

    slot: int
    settings: bytes
    metrics_dir: str
    version_path: str
    device: str
    threads: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Child -> supervisor: it serves. `cost_ms` per policy is a worker's."""

    cost_ms: dict[str, float] = {}


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Worker -> supervisor, then it exits: the version failed its checks or its self-test."""

    reason: str


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Child -> supervisor, once a second from the thread that does the work's input and output."""


ControlMessage = (
    WorkerUp
    | WorkerDown
    | WorkerRetiring
    | ModelsChanged
    | StateChanged
    | Drain
    | FrontendUp
    | StartFrontend
    | StartJobs
    | Prepare
    | StartWorker
    | Ready
    | Refused
    | Heartbeat
)

work_encoder = msgspec.msgpack.Encoder()
work_decoder: msgspec.msgpack.Decoder[WorkFrame] = msgspec.msgpack.Decoder(WorkFrame)
control_encoder = msgspec.msgpack.Encoder()
control_decoder: msgspec.msgpack.Decoder[ControlMessage] = msgspec.msgpack.Decoder(ControlMessage)
