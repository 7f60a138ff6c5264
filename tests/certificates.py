"""Certificates that nobody but the test trusts."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make(directory: Path, password: str) -> Path:
    """A certificate of 127.0.0.1 that signs itself (`crt`), its `key`, and the key under a password (`locked`)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    for file, lock in (
        ("key", serialization.NoEncryption()),
        ("locked", serialization.BestAvailableEncryption(password.encode())),
    ):
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        (directory / file).write_bytes(key.private_bytes(*form, lock))
    return directory


def server_side(directory: Path) -> ssl.SSLContext:
    """What a server with the certificate needs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "crt", directory / "key")
    return context
