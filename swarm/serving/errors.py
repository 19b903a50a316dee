"""What a client of OpenAI's API is told; each kind has the status and the words that such clients look at."""

from __future__ import annotations

from typing import Any, ClassVar


class ApiError(Exception):
    """A request that is not answered.

    Args:
        message: One sentence.
        param: The field that is at fault, or None.
    """

    status: ClassVar[int] = 400
    kind: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def to_json(self) -> dict[str, Any]:
        """The body of the answer."""
        told = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": told}


class UnsupportedError(ApiError):
    """A field asks for what is not done here."""

    code: ClassVar[str | None] = "unsupported_parameter"


class TooLongError(ApiError):
    """The prompt has more tokens than the model sees at once."""

    code: ClassVar[str | None] = "context_length_exceeded"


class TooLargeError(ApiError):
    """The request has more bytes than it may have."""

    status = 413
    code: ClassVar[str | None] = "request_too_large"


class NotAllowedError(ApiError):
    """The token is missing or wrong."""

    status = 401
    kind = "authentication_error"
    code: ClassVar[str | None] = "invalid_api_key"


class ForeignError(ApiError):
    """The request comes from a page of the web, or asks another host."""

    status = 403
    kind = "permission_error"
    code: ClassVar[str | None] = "forbidden"


class NoModelError(ApiError):
    """Another model is asked for than the one that is served."""

    status = 404
    code: ClassVar[str | None] = "model_not_found"


class NoRouteError(ApiError):
    """Nothing is served at that address."""

    status = 404
    code: ClassVar[str | None] = "unknown_url"


class BusyError(ApiError):
    """As many requests wait as may."""

    status = 429
    kind = "rate_limit_error"
    code: ClassVar[str | None] = "queue_full"


class FailedError(ApiError):
    """The worker could not do it."""

    status = 500
    kind = "server_error"
    code: ClassVar[str | None] = "worker_failed"
