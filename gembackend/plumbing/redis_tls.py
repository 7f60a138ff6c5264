"""What a URL of Redis may say about TLS: certificates are loaded when it is read, not when they are first needed."""

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gembackend.plumbing.values import Refused


def text(name: str, value: str) -> str:
    """Any text but none."""
    if not value:
        raise Refused(f"must not set {name} to nothing")
    return value


def _one_of(words: Mapping[str, Any]) -> Callable[[str, str], Any]:
    def parse(name: str, value: str) -> Any:
        word = value.lower().removeprefix("cert_").removeprefix("tlsv")
        if word not in words:
            raise Refused(f"must set {name} to one of {', '.join(words)}")
        return words[word]

    return parse


def _flags(name: str, value: str) -> list[ssl.VerifyFlags]:
    words = [word.strip() for word in value.strip("[]").split(",")]
    if not all(word in ssl.VerifyFlags.__members__ for word in words):
        raise Refused(f"must set {name} to names of Python's ssl.VerifyFlags")
    return [ssl.VerifyFlags[word] for word in words]


_YES_OR_NO = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERSION_WORDS = _VERSIONS | {str(int(version)): version for version in _VERSIONS.values()}

PARAMETERS: dict[str, Callable[[str, str], Any]] = {
    "ssl_cert_reqs": _one_of({"none": "none", "optional": "optional", "required": "required"}),
    "ssl_check_hostname": _one_of(_YES_OR_NO),
    "ssl_min_version": _one_of(_VERSION_WORDS),
    "ssl_include_verify_flags": _flags,
    "ssl_exclude_verify_flags": _flags,
    "ssl_ca_certs": text,
    "ssl_ca_path": text,
    "ssl_ca_data": text,
    "ssl_certfile": text,
    "ssl_keyfile": text,
    "ssl_password": text,
    "ssl_ciphers": text,
}
"""What a URL may say about TLS, as redis-py calls it, and what makes a value of it."""


def try_certificates(options: Mapping[str, Any]) -> None:
    """Load what the URL names as redis-py would for each connection, where it would pass for an outage."""
    context = ssl.create_default_context()
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if key and not certificate:
        raise Refused("must set ssl_certfile with ssl_keyfile")
    # Without a password of the key OpenSSL would ask for it at the terminal.
    password = options.get("ssl_password", "")
    trials: dict[str, Callable[[], object]] = {
        "ssl_ca_certs": lambda: context.load_verify_locations(cafile=options["ssl_ca_certs"]),
        "ssl_ca_path": lambda: next(Path(options["ssl_ca_path"]).iterdir()),
        "ssl_ca_data": lambda: context.load_verify_locations(cadata=options["ssl_ca_data"]),
        "ssl_certfile": lambda: context.load_cert_chain(options["ssl_certfile"], key, password),
        "ssl_ciphers": lambda: context.set_ciphers(options["ssl_ciphers"]),
    }
    for name, load in trials.items():
        if name in options:
            try:
                load()
            except OSError as error:
                raise Refused(f"sets {name} to what cannot be loaded ({_reason(error)})") from None
            except (ValueError, StopIteration):
                raise Refused(f"sets {name} to what cannot be loaded") from None


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it is no such thing, or needs another ssl_password"
    return error.strerror or type(error).__name__
