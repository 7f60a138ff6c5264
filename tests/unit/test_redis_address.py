"""What `REDIS_URL` may say: everything that is harmless works, everything else is refused in a sentence."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from gembackend import config
from gembackend.config import ConfigError
from gembackend.plumbing import redis_address
from gembackend.plumbing.redis import connect
from gembackend.plumbing.values import Refused
from tests import certificates

DECIDED_BY_US = (
    "protocol=3",
    "protocol=2",
    "decode_responses=true",
    "socket_timeout=60",
    "socket_connect_timeout=60",
    "socket_read_size=1",
    "socket_keepalive=no",
    "retry_on_timeout=true",
    "retry_on_error=x",
    "retry=5",
    "max_connections=1",
    "timeout=0.001",
    "health_check_interval=1",
    "encoding=utf-16",
    "encoding_errors=ignore",
    "connection_class=x",
    "parser_class=x",
    "single_connection_client=true",
    "legacy_responses=false",
    "lib_name=x",
    "host=elsewhere",
    "port=1",
    "path=/elsewhere",
    "ssl=true",
    "cluster=true",
)


def refusal(url: str) -> str:
    with pytest.raises(Refused) as refused:
        redis_address.read(url)
    return str(refused.value)


@pytest.mark.parametrize("parameter", DECIDED_BY_US)
@pytest.mark.parametrize("name", ["REDIS_URL", "UPSTASH_URL"])
def test_what_the_code_depends_on_is_not_for_the_url_to_decide(name: str, parameter: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.load({name: f"redis://:hush@cache:6379/0?{parameter}"}, "dev")
    [fault] = refused.value.faults
    assert fault.startswith(f"{name} must not set {parameter.split('=')[0]}: ")
    assert "hush" not in fault


@pytest.mark.parametrize(
    ("url", "where", "options"),
    [
        ("redis://cache", "cache:6379", {}),
        ("redis://cache/", "cache:6379", {}),
        ("redis://cache:6380/3", "cache:6380", {"db": 3}),
        ("redis://cache?db=3", "cache:6379", {"db": 3}),
        ("redis://cache/3?db=3", "cache:6379", {"db": 3}),
        ("redis://[::1]:6380/1", "[::1]:6380", {"db": 1}),
        ("redis://[fe80::1%25eth0]", "[fe80::1%eth0]:6379", {}),
        ("redis://my_cache.internal", "my_cache.internal:6379", {}),
        ("redis://app:p%40ss%2Fw%3Ford%23@cache", "cache:6379", {"username": "app", "password": "p@ss/w?ord#"}),
        ("redis://:gr%C3%BCn@cache", "cache:6379", {"password": "grün"}),
        ("redis://:p@ss@cache", "cache:6379", {"password": "p@ss"}),
        ("redis://cache?username=app&password=a%20b", "cache:6379", {"username": "app", "password": "a b"}),
        ("redis://cache?client_name=chat-1", "cache:6379", {"client_name": "chat-1"}),
        ("unix:///run/redis.sock", "/run/redis.sock", {}),
        ("unix://:pw@/run/redis%20two.sock?db=4", "/run/redis two.sock", {"db": 4, "password": "pw"}),
        ("rediss://default:x@cache:6379", "cache:6379", {"username": "default", "password": "x"}),
        ("rediss://cache?ssl_cert_reqs=none", "cache:6379", {"ssl_cert_reqs": "none"}),
        ("rediss://cache?ssl_cert_reqs=CERT_NONE", "cache:6379", {"ssl_cert_reqs": "none"}),
        ("rediss://cache?ssl_check_hostname=false", "cache:6379", {"ssl_check_hostname": False}),
        ("rediss://cache?ssl_min_version=TLSv1.3", "cache:6379", {"ssl_min_version": ssl.TLSVersion.TLSv1_3}),
        (
            "rediss://cache?ssl_exclude_verify_flags=VERIFY_X509_STRICT",
            "cache:6379",
            {"ssl_exclude_verify_flags": [ssl.VerifyFlags.VERIFY_X509_STRICT]},
        ),
    ],
)
def test_what_is_harmless_works(url: str, where: str, options: dict[str, Any]) -> None:
    address = redis_address.read(url)
    assert (address.where, address.options) == (where, options)
    assert address.tls == url.startswith("rediss:")
    assert not any(str(options[secret]) in repr(address) for secret in ("password",) if secret in options)
    pool = connect(url).connection_pool
    made = pool.make_connection()
    assert {name: getattr(made, name) for name in options if not name.startswith("ssl_")} == {
        name: value for name, value in options.items() if not name.startswith("ssl_")
    }
    assert (made.socket_timeout, made.socket_connect_timeout, made.protocol) == (1.0, 1.0, 2)
    assert (made.retry_on_timeout, made.health_check_interval) == (False, 0)


@pytest.mark.parametrize(
    "url",
    [
        "http://cache",
        "redis+sentinel://cache/hush",
        "redis://",
        "redis:///0",
        "redis://:hush@:6379",
        "redis://::1:6379",
        "redis://[::1",
        "redis://cache:hush",
        "redis://cache:0",
        "redis://cache:65536",
        "redis://one:6379,two:6379",
        "redis://one,two:6379",
        "redis://a..b",
        "redis://" + "a" * 64,
        "redis://cache/hush",
        "redis://cache/0/1",
        "redis://cache/-1",
        "redis://cache/１",
        "redis://cache/1?db=2",
        "redis://cache?db=hush",
        "redis://cache?db=",
        "redis://cache?db=1&db=2",
        "redis://:hush@cache?password=hush",
        "redis://cache?client_name=hush%20hush",
        "redis://cache?client_name=h%C3%BCsh",
        "redis://cache?ssl_cert_reqs=none",
        "rediss://cache?ssl_cert_reqs=hush",
        "rediss://cache?ssl_check_hostname=hush",
        "rediss://cache?ssl_min_version=hush",
        "rediss://cache?ssl_ciphers=hush",
        "rediss://cache?ssl_include_verify_flags=hush",
        "rediss://cache?ssl_ca_certs=/hush",
        "rediss://cache?ssl_ca_path=/hush",
        "rediss://cache?ssl_ca_data=hush",
        "rediss://cache?ssl_certfile=/hush",
        "rediss://cache?ssl_keyfile=/hush",
        "redis://:hu?sh@cache:6379",
        "redis://:hu/sh@cache:6379",
        "redis://:hu#sh@cache:6379",
        "redis://:hu?sh=1@cache:6379",
        "redis://:hush%FF@cache",
        "redis://cache?password=%FF",
        "redis://cache?hush",
        "unix://run/hush.sock",
        "unix://",
        "unix:///",
        "unix:///run/redis.sock?ssl_cert_reqs=none",
    ],
)
def test_what_cannot_be_is_a_sentence_that_quotes_nothing(url: str) -> None:
    told = refusal(url)
    assert told.startswith(("must ", "sets "))
    assert "hu" not in told or "must not set hush:" in told, told


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate of its own authority, its key, and the key once more under a password."""
    return certificates.make(tmp_path_factory.mktemp("tls"), "hush")


def test_certificates_are_loaded_when_the_url_is_read(certificate: Path) -> None:
    files = f"ssl_ca_certs={certificate}/crt&ssl_ca_path={certificate}&ssl_certfile={certificate}/crt"
    for key in ("key", "locked&ssl_password=hush"):
        address = redis_address.read(f"rediss://cache?{files}&ssl_keyfile={certificate}/{key}")
        assert address.options["ssl_certfile"] == f"{certificate}/crt"
    for key in ("locked", "locked&ssl_password=wrong", "crt"):
        told = refusal(f"rediss://cache?{files}&ssl_keyfile={certificate}/{key}")
        assert told.startswith("sets ssl_certfile to what cannot be loaded")
    assert "No such file" in refusal(f"rediss://cache?ssl_ca_certs={certificate}/none")
