"""Why a server is away, in words for a person."""

import socket
import ssl

import pytest

from gembackend.checks.report import Report, why_away


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 9)"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "its name is not known"),
        (TimeoutError(), "no answer in time"),
        (ConnectionResetError(104, "Connection reset by peer"), "connection reset by peer"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "it does not speak TLS"),
        (untrusted(), "its certificate is not trusted: self-signed certificate"),
        (FileNotFoundError(2, "No such file or directory"), "no such file or directory"),
        (OSError("multiple exceptions"), "oserror"),
        (ValueError("never shown"), "RuntimeError"),
    ],
)
def test_the_network_has_the_word(cause: Exception, said: str) -> None:
    outer = RuntimeError("never shown")
    outer.__cause__ = cause
    assert why_away(outer) == said


def test_a_report_is_a_line_for_each_thing() -> None:
    assert list(Report("version 7", warnings=["hm"]).lines("X")) == ["ok    X: version 7", "warn  X: hm"]
    assert list(Report("version 7", faults=["a", "b"]).lines("X")) == ["FAIL  X: a", "FAIL  X: b"]
    assert list(Report().lines("X")) == ["ok    X"]
