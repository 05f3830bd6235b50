"""A ServiceError as a gRPC status: the table's code, the message, and google.rpc details for programs."""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service.errors import BadRequest, ServiceError
from service.protocols.status import find_status

DOMAIN = "resnet-serve"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"


def find_code(error: ServiceError) -> grpc.StatusCode:
    """The gRPC status code of `error`."""
    return grpc.StatusCode[find_status(error).grpc]


def find_code_number(error: ServiceError) -> int:
    """The same as google.rpc.Code has it."""
    number: int = find_code(error).value[0]
    return number


def describe_error(error: ServiceError, request_id: str) -> status_pb2.Status:
    """google.rpc.Status with ErrorInfo (the slug), RequestInfo, BadRequest or RetryInfo where they apply."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.slug, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if isinstance(error, BadRequest) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.detail)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=find_code_number(error), message=error.detail)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def make_trailers(error: ServiceError, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata that carries the details, as every gRPC library reads them."""
    details = describe_error(error, request_id).SerializeToString()
    return ((DETAILS_KEY, details), (REQUEST_ID_KEY, request_id))
