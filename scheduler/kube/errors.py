"""What can go wrong between us and the API server, as values.

A scheduler's answer to a failed request depends on one question: *was it executed?* So the
classes here are cut along that line and not along HTTP's:

* `Unreachable`: no connection, so certainly not executed;
* `OutcomeUnknown`: sent, but no answer came (timeout, connection lost): it may be executed,
  even later;
* `ApiError`: answered. `kind` says how; of these only `SERVER_ERROR` leaves the outcome open.

`str(error)` is one line for a user: it names the thing that failed and what to do about it.
"""

import enum
from collections.abc import Mapping

import msgspec


class ErrorKind(enum.Enum):
    """The answers that callers treat differently (apimachinery/pkg/api/errors)."""

    INVALID = "invalid"  # 400, 422 and every other 4xx: the request itself is wrong
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    ALREADY_EXISTS = "already_exists"
    GONE = "gone"
    TOO_MANY_REQUESTS = "too_many_requests"
    SERVER_ERROR = "server_error"


class KubeError(Exception):
    """Anything that this package reports about the API server."""


class ConfigError(KubeError):
    """No usable kubeconfig or in-cluster credentials."""


class TransportError(KubeError):
    """No answer."""


class Unreachable(TransportError):
    """No connection was made: the request was certainly not executed."""


class OutcomeUnknown(TransportError):
    """The request left us and no answer came: it may or may not have been executed."""


class ApiError(KubeError):
    """An answer with a status of 300 or more."""

    def __init__(
        self,
        status: int,
        *,
        reason: str = "",
        message: str = "",
        retry_after_s: float | None = None,
        method: str = "GET",
        path: str = "/",
    ) -> None:
        """`reason` and `message` are those of the API's Status object."""
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self.kind = kind_of(status, reason)
        self._method = method
        self._path = path

    def __str__(self) -> str:
        verb, resource = _verb_and_resource(self._method, self._path)
        said = self.message or self.reason or f"status {self.status}"
        match self.kind:
            case ErrorKind.UNAUTHORIZED:
                return (
                    f"token or certificate rejected (expired?) on {verb} {resource}: renew the credentials "
                    f"in the kubeconfig; the API server says: {said}"
                )
            case ErrorKind.FORBIDDEN:
                return (
                    f"not allowed to {verb} {resource}: grant it with a ClusterRole and binding "
                    f"(`kubectl auth can-i {verb} {resource}` checks it); the API server says: {said}"
                )
            case _:
                return f"cannot {verb} {resource}: the API server answered {self.status}: {said}"


class StatusDetails(msgspec.Struct, rename="camel"):
    """The one field of Status.details that we read."""

    retry_after_seconds: int = 0


class Status(msgspec.Struct, rename="camel"):
    """meta/v1 Status, trimmed."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: StatusDetails | None = None


_decode_status = msgspec.json.Decoder(Status).decode


def error_from_answer(
    status: int, body: bytes, headers: Mapping[str, str], *, method: str, path: str
) -> ApiError:
    """The error in an HTTP answer; a body that is no Status (a proxy's page) is quoted in part."""
    try:
        answer = _decode_status(body)
    except msgspec.DecodeError:
        answer = Status(message=body[:200].decode("utf-8", "replace").strip())
    return ApiError(
        status,
        reason=answer.reason,
        message=answer.message,
        retry_after_s=_retry_after_s(headers.get("Retry-After"), answer.details),
        method=method,
        path=path,
    )


def error_from_status(answer: Status, *, method: str, path: str) -> ApiError:
    """The error in an ERROR event of a watch, whose object is a Status."""
    return ApiError(
        answer.code,
        reason=answer.reason,
        message=answer.message,
        retry_after_s=_retry_after_s(None, answer.details),
        method=method,
        path=path,
    )


def kind_of(status: int, reason: str) -> ErrorKind:
    """Class of an answer; 409 has two meanings, which Status.reason tells apart."""
    match status:
        case 401:
            return ErrorKind.UNAUTHORIZED
        case 403:
            return ErrorKind.FORBIDDEN
        case 404:
            return ErrorKind.NOT_FOUND
        case 409:
            return ErrorKind.ALREADY_EXISTS if reason == "AlreadyExists" else ErrorKind.CONFLICT
        case 410:
            return ErrorKind.GONE
        case 429:
            return ErrorKind.TOO_MANY_REQUESTS
        case _:
            return ErrorKind.SERVER_ERROR if status >= 500 else ErrorKind.INVALID


def _retry_after_s(header: str | None, details: StatusDetails | None) -> float | None:
    # The API server sends whole seconds; the date form of RFC 9110 is a proxy's and not worth a parser.
    if header is not None and header.isdigit():
        return float(header)
    if details is not None and details.retry_after_seconds > 0:
        return float(details.retry_after_seconds)
    return None


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _verb_and_resource(method: str, path: str) -> tuple[str, str]:
    """RBAC verb and `resource[/subresource]` of a request: what a Role must name."""
    parts = path.partition("?")[0].strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) >= 3 and parts[0] == "namespaces":
        parts = parts[2:]
    if not parts:
        return _VERBS.get(method, "get"), path
    resource = "/".join([parts[0], *parts[2:]])
    if method == "GET":
        watched = "watch=" in path.partition("?")[2]
        return ("get" if len(parts) > 1 else "watch" if watched else "list"), resource
    return _VERBS.get(method, method.lower()), resource
