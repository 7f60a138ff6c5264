"""The certificates that a PostgreSQL URL names: whether they can be used, and trust in the system's own."""

import ssl
from collections.abc import Callable
from pathlib import Path

from gembackend.plumbing.database_url import Target
from gembackend.plumbing.values import Refused

_HOME_ROOT = Path(".postgresql/root.crt")
"""Where PostgreSQL's clients look for roots, below the home directory, when the URL names none."""


def look_at_files(target: Target, root: str | None) -> None:
    """Raise Refused for files that cannot be used; `root` is PGSSLROOTCERT."""
    tls = target.tls
    root = tls.get("sslrootcert") or root
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if root is None and tls.get("sslmode") in ("verify-ca", "verify-full") and not _home_has_roots():
        raise Refused(f"needs sslrootcert with sslmode={tls['sslmode']}: a file of certificates, or system")
    if root not in (None, "system") and not _loads(lambda: context.load_verify_locations(cafile=root)):
        raise Refused("has an sslrootcert that is not a readable file of certificates")
    if "sslcrl" in tls and not _loads(lambda: context.load_verify_locations(cafile=tls["sslcrl"])):
        raise Refused("has an sslcrl that is not a readable file of revoked certificates")
    if "sslcert" in tls and not _loads(lambda: _show_certificate(context, target)):
        raise Refused("has an sslcert, sslkey and sslpassword that cannot be read or do not belong together")


def system_trust(target: Target) -> ssl.SSLContext:
    """What verifies a server by the system's own roots; made once, because reading them takes 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    if "sslcert" in target.tls:
        _show_certificate(context, target)
    return context


def _show_certificate(context: ssl.SSLContext, target: Target) -> None:
    tls = target.tls
    context.load_cert_chain(tls["sslcert"], tls["sslkey"], password=lambda: tls.get("sslpassword", ""))


def _home_has_roots() -> bool:
    try:
        return (Path.home() / _HOME_ROOT).exists()
    except (RuntimeError, OSError):
        return False


def _loads(load: Callable[[], None]) -> bool:
    try:
        load()
    except (OSError, ValueError):  # an ssl.SSLError is an OSError
        return False
    return True
