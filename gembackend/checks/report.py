"""What a check found, as lines for a person."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """What there is to say of one dependency: `said` when all is well, a sentence for each fault and each warning."""

    said: str = ""
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def lines(self, name: str) -> Iterator[str]:
        """A line for each fault, or one that says that it works, and one for each warning."""
        if not self.faults:
            yield f"ok    {name}: {self.said}" if self.said else f"ok    {name}"
        for fault in self.faults:
            yield f"FAIL  {name}: {fault}"
        for warning in self.warnings:
            yield f"warn  {name}: {warning}"


class Failed(Exception):
    """A check failed; the text says why, for a person."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def why_away(error: BaseException) -> str:
    """Why a server cannot be reached, in a few words: of the exception and what led to it, what the network said."""
    cause = next((each for each in causes(error) if isinstance(each, OSError)), None)
    match cause:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {cause.verify_message}"
        case ssl.SSLError():
            return "it does not speak TLS"
        case socket.gaierror():
            return "its name is not known"
        case ConnectionRefusedError():
            return "connection refused"
        case TimeoutError():
            return "no answer in time"
        case OSError():
            return (cause.strerror or type(cause).__name__).lower()
    return type(error).__name__
