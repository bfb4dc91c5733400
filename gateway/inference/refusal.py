"""Why a request is not answered, with the HTTP status that says whose fault it is."""

from __future__ import annotations

from gateway.errors import GatewayError


class RefusalError(GatewayError):
    """A request that cannot be answered. With ``retry_after_s`` (whole seconds) it may be sent again then."""

    def __init__(
        self, status: int, code: str, message: str, *, hint: str = "", retry_after_s: int | None = None
    ) -> None:
        super().__init__(code, message, hint=hint)
        self.status = status
        self.retry_after_s = retry_after_s
