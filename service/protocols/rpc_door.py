"""Where every gRPC call enters while keys are on: it is asked for its key before its message is read."""

from service.access.gate import ANY, Gate, Need, read_credential
from service.protocols.rpc_wire import CallHead

# Health is for probes and balancers, which have no keys; reflection tells what proto/ tells everybody.
PUBLIC_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
PUBLIC_METHODS = frozenset(
    f"/inference.GRPCInferenceService/{name}" for name in ("ServerLive", "ServerReady")
)
CLASSIFYING = frozenset(
    {
        "/resnet.v1.Classifier/Classify",
        "/resnet.v1.Classifier/ClassifyStream",
        "/inference.GRPCInferenceService/ModelInfer",
        "/inference.GRPCInferenceService/ModelStreamInfer",
    }
)


def find_need(method: str) -> Need | None:
    """The scope for `method`, ANY for whoever has a key, None for everybody."""
    if method.startswith(PUBLIC_SERVICES) or method in PUBLIC_METHODS:
        return None
    return "classify" if method in CLASSIFYING else ANY


class RpcDoor:
    """Names the caller of a call, or refuses it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def admit(self, head: CallHead) -> str:
        """The id of the caller's key, "" where none is asked for; raises Unauthenticated, Forbidden."""
        need = find_need(head.route)
        if need is None:
            return ""
        credential = read_credential(head.find("authorization"), head.find("x-api-key"))
        return self._gate.require(credential, need).id
