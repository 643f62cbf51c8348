"""What can go wrong for a client, each with its remedy."""

from __future__ import annotations

import json
import ssl

from websockets.exceptions import ConnectionClosed, InvalidStatus

from voiceagent.client.events import Done, Failed
from voiceagent.client.retry import BUSY, RETRYABLE
from voiceagent.errors import VoiceAgentError

REMEDIES = {
    401: "Give the server's key: --api-key KEY, or api_key=.",
    403: "The server refuses this origin or host name; connect by the address it was started with.",
    404: "Is this a voiceagent server? Give ws://HOST:PORT.",
    429: "The server has all the calls that it takes. Try again later.",
    503: "The model is still being loaded, or the server is full. Try again in a moment.",
}


class ClientError(VoiceAgentError):
    """The server cannot be reached, refused, closed the connection, or answered with an error event.

    Args:
        message: what is wrong.
        code: the server's, or `unreachable`, `untrusted_certificate`, `refused`, `connection_closed`, `timeout`.
        remedy: what to do about it.
        param: the field of the request.
        retryable: the same may work in a moment.
    """

    default_code = "client_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        remedy: str = "",
        param: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, code=code, remedy=remedy, param=param)
        self.retryable = retryable


def refused(error: InvalidStatus) -> ClientError:
    """The server's answer to an upgrade that it did not make."""
    status, body = error.response.status_code, bytes(error.response.body or b"").decode(errors="replace")
    code, message = "refused", body[:200] or "no reason given"
    try:
        told = json.loads(body)["error"]
        code, message = str(told.get("code") or code), str(told["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    words = f"The server refused ({status}): {message}"
    return ClientError(words, code=code, remedy=REMEDIES.get(status, ""), retryable=status in BUSY)


def unreachable(url: str, error: Exception) -> ClientError:
    """Nobody, or nobody who speaks this protocol, answers there."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ClientError(
            f"The certificate of {url} is not trusted: {error.verify_message}.",
            code="untrusted_certificate",
            remedy="Name the certificate to trust: --ca FILE.pem, or ca=.",
        )
    return ClientError(
        f"Cannot connect to {url}: {str(error) or type(error).__name__}.",
        code="unreachable",
        remedy="Is the server running? Start it with scripts/serve.",
        retryable=isinstance(error, OSError | TimeoutError),
    )


def closed(error: ConnectionClosed) -> ClientError:
    """The connection has ended; 1006 stands for an end without a word."""
    code = 1006 if error.rcvd is None else error.rcvd.code
    why = "without a word" if error.rcvd is None else error.rcvd.reason or "no reason given"
    words = f"The connection was closed ({code}, {why})."
    return ClientError(words, code="connection_closed", retryable=code in RETRYABLE)


def raise_if_failed(event: Failed | Done) -> None:
    """Raises ClientError for an error message, or for a response that failed."""
    if isinstance(event, Failed):
        raise ClientError(event.message, code=event.code, param=event.param)
    if event.problem is not None:
        raise ClientError(event.problem[1], code=event.problem[0])
