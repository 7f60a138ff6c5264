"""The parameters of a PostgreSQL URL: which are done, which ask for what is done anyway, and which are refused."""

import re
from collections.abc import Callable

Check = Callable[[str, str], str | None]
"""What is wrong with a parameter (name, value), or None; it goes on where the variable's name left off."""


def check_parameter(name: str, value: str, *, quotable: bool) -> str | None:
    """Why this parameter cannot be had, or None. Values are not quoted, nor a name that may be part of a password."""
    check = _CHECKS.get(name)
    if check is None:
        told = name if quotable and re.fullmatch(r"[A-Za-z_]{2,40}", name) else "one"
        return f"has a parameter ({told}) that PostgreSQL's clients do not know; server settings belong into options"
    return check(name, value) if value else None


def _anything(_name: str, _value: str) -> None:
    return None


def _one_of(*words: str) -> Check:
    def check(name: str, value: str) -> str | None:
        return None if value in words else f"needs {name} to be one of {', '.join(words)}"

    return check


def _whole(low: int) -> Check:
    def check(name: str, value: str) -> str | None:
        fits = re.fullmatch(r"-?[0-9]{1,9}", value) and int(value) >= low
        return None if fits else f"needs {name} to be a whole number" + (f" from {low} on" if low > -(10**9) else "")

    return check


def _only(*words: str, instead: str) -> Check:
    """For what is done anyway, or cannot be done."""

    def check(name: str, value: str) -> str | None:
        return None if value.lower() in words else f"asks for {name}, which is not supported: {instead}"

    return check


def _unsupported(instead: str) -> Check:
    return _only(instead=instead)


_TLS_VERSIONS = _one_of("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_WRITES = "the service writes, so it takes any, read-write or primary"
_NO_KERBEROS = "log in with a password or a certificate"
_LEAVE_OUT = "leave it out"

_CHECKS: dict[str, Check] = {
    **dict.fromkeys(
        ("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "options", "application_name"), _anything
    ),
    **dict.fromkeys(
        ("fallback_application_name", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"), _anything
    ),
    "sslmode": _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": _one_of("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": _only("any", "read-write", "primary", instead=_WRITES),
    "connect_timeout": _whole(-(10**9)),
    "keepalives": _one_of("0", "1"),
    "keepalives_idle": _whole(0),
    "keepalives_interval": _whole(0),
    "keepalives_count": _whole(0),
    "tcp_user_timeout": _whole(0),
    "channel_binding": _only(
        "disable", "prefer", instead="leave it out; sslmode=verify-full with sslrootcert=system proves the server"
    ),
    "client_encoding": _only("auto", "utf8", "utf-8", "unicode", instead="it is always UTF8"),
    "load_balance_hosts": _only("disable", instead="hosts are tried in their order"),
    "replication": _only("0", "false", "off", "no", instead=_LEAVE_OUT),
    "sslcompression": _one_of("0", "1"),  # without effect since OpenSSL 1.1, in libpq too
    "sslsni": _only("1", instead="the server is always told the host's name"),
    "sslcertmode": _only("allow", instead="give sslcert and sslkey, or leave them out"),
    "gssencmode": _only("disable", "prefer", instead="use sslmode=require or stricter"),
    "gssdelegation": _only("0", instead=_NO_KERBEROS),
    "krbsrvname": _unsupported(_NO_KERBEROS),
    "gsslib": _unsupported(_NO_KERBEROS),
    "min_protocol_version": _only("3.0", instead="the protocol's version is 3.0"),
    "max_protocol_version": _only("3.0", "3.2", "latest", instead="the protocol's version is 3.0"),
    "require_auth": _unsupported("let pg_hba.conf of the server decide"),
    "requirepeer": _unsupported("rely on the permissions of the socket's directory"),
    "service": _unsupported("write host, port, dbname and user into the URL"),
    "servicefile": _unsupported("write host, port, dbname and user into the URL"),
    "sslcrldir": _unsupported("give one file as sslcrl"),
    "sslkeylogfile": _unsupported(_LEAVE_OUT),
    "scram_client_key": _unsupported("give the password"),
    "scram_server_key": _unsupported("give the password"),
    **dict.fromkeys(
        ("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"),
        _unsupported("log in with a password or a certificate"),
    ),
}
