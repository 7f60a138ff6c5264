"""Settings out of an environment, and everything that is refused."""

import os
from pathlib import Path

import pytest

from gembackend import config, environment
from gembackend.config import ConfigError, RateLimit

KEY = "9fQ2rX7bLw4ZpVt0NcYmUe8sHj3KdGa6"
PRODUCTION = {
    "DATABASE_URL": "postgresql://app:pw@db:5432/chat",
    "REDIS_URL": "redis://cache:6379/0",
    "JWT_SECRET_KEY": KEY,
    "GEMINI_API_KEY": "AIza-something",
    "OTP_DELIVERY": "webhook",
    "OTP_WEBHOOK_URL": "https://sms.example.org/codes",
    "OTP_WEBHOOK_SECRET": "whatever the gateway wants",
}


def faults(environ: dict[str, str], mode: config.Mode = "serve") -> list[str]:
    with pytest.raises(ConfigError) as refused:
        config.load(environ, mode)
    return refused.value.faults


def test_dev_needs_nothing() -> None:
    settings = config.load({}, "dev")
    assert (settings.environment, settings.server_host, settings.server_port) == ("development", "127.0.0.1", 3000)
    assert (settings.otp_delivery, settings.log_format, settings.database_url) == ("response", "console", None)
    assert settings.data_dir == Path(".data").resolve()


DEFAULTS: dict[str, object] = {
    "environment": "production",
    "server_host": "0.0.0.0",
    "server_port": 3000,
    "metrics_port": None,
    "public_base_url": "http://127.0.0.1:3000",
    "trusted_proxies": (),
    "database_pool_size": 10,
    "database_pooler": "auto",
    "database_connect_seconds": 5,
    "jwt_previous_keys": (),
    "jwt_ttl_seconds": 1200,
    "otp_ttl_seconds": 300,
    "otp_resend_seconds": 30,
    "otp_max_attempts": 5,
    "auth_rate_limit": RateLimit(30, 300),
    "basic_daily_prompts": 5,
    "prompt_max_chars": 8000,
    "prompt_workers": 64,
    "prompt_history_messages": 20,
    "prompt_max_attempts": 5,
    "prompt_lease_seconds": 30,
    "prompt_backlog_limit": 10_000,
    "prompt_room_limit": 20,
    "gemini_model": "gemini-2.5-flash-lite",
    "gemini_fallback_model": None,
    "gemini_endpoint": None,
    "gemini_timeout_seconds": 30,
    "stripe_secret_key": None,
    "pro_price_ids": (),
    "stripe_webhook_signing_secrets": (),
    "stripe_api_base": None,
    "past_due_grace_days": 7,
    "shutdown_grace_seconds": 25,
    "traces_endpoint": None,
    "log_level": "info",
    "log_format": "json",
    "data_dir": Path(".data").resolve(),
}
"""What `serve` is promised to do where nothing says otherwise."""

DEFAULTS_OF_DEV: dict[str, object] = {
    "environment": "development",
    "server_host": "127.0.0.1",
    "otp_delivery": "response",
    "log_format": "console",
    "database_url": None,
    "redis_url": None,
    "jwt_secret_key": None,
    "gemini_api_key": None,
}
"""What `dev` does differently, or needs nothing for."""


def test_every_default_is_the_one_that_is_promised() -> None:
    served, developed = config.load(PRODUCTION, "serve"), config.load({}, "dev")
    assert {name: getattr(served, name) for name in DEFAULTS} == DEFAULTS
    promised = {**DEFAULTS, **DEFAULTS_OF_DEV}
    assert {name: getattr(developed, name) for name in promised} == promised
    assert config.load({**PRODUCTION, "SERVER_PORT": "8080"}, "serve").public_base_url == "http://127.0.0.1:8080"


def test_serve_without_anything_names_every_variable_at_once() -> None:
    told = faults({})
    for name in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY", "GEMINI_API_KEY", "OTP_DELIVERY"):
        assert len([fault for fault in told if fault.startswith(f"{name} ")]) == 1, told


def test_the_seeds_own_names_are_taken() -> None:
    environ = {
        "DB_HOST": "db",
        "DB_NAME": "chat",
        "DB_USER": "me",
        "DB_PASS": "p@ss/word",
        "UPSTASH_URL": "rediss://default:x@host:6379",
    }
    settings = config.load({**PRODUCTION, "DATABASE_URL": "", "REDIS_URL": "", **environ}, "serve")
    assert settings.database_url == "postgresql://me:p%40ss%2Fword@db:5432/chat"
    assert settings.redis_url == "rediss://default:x@host:6379"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_PORT", "http"),
        ("SERVER_PORT", "65536"),
        ("METRICS_PORT", "0"),
        ("DATABASE_URL", "mysql://db/chat"),
        ("DATABASE_POOL_SIZE", "-7"),
        ("DATABASE_POOLER", "pgbouncer"),
        ("REDIS_URL", "http://cache"),
        ("JWT_TTL_SECONDS", "-1"),
        ("AUTH_RATE_LIMIT", "77"),
        ("AUTH_RATE_LIMIT", "0/77"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("PROMPT_WORKERS", "many"),
        ("PROMPT_LEASE_SECONDS", "nan"),
        ("GEMINI_ENDPOINT", "https://gemini"),
        ("OTP_DELIVERY", "pigeon"),
        ("ENVIRONMENT", "staging"),
        ("LOG_LEVEL", "loud"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("PUBLIC_BASE_URL", "chat.example.org"),
        ("PUBLIC_BASE_URL", "https:///api"),
        ("PUBLIC_BASE_URL", "https://:8443/api"),
        ("PUBLIC_BASE_URL", "https://chat.example.org/api?key=1"),
        ("PUBLIC_BASE_URL", "https://chat.example.org/#docs"),
        ("PUBLIC_BASE_URL", "https://chat.example.org/a//b"),
        ("PUBLIC_BASE_URL", "https://chat.example.org/a/../b"),
        ("PUBLIC_BASE_URL", "https://chat.example.org/a b"),
        ("PUBLIC_BASE_URL", "https://chat.example.org:99999"),
        ("PUBLIC_BASE_URL", "https://me:secret@chat.example.org"),
        ("SERVER_HOST", "http://0.0.0.0"),
        ("SERVER_HOST", "0.0.0.0:3000"),
        ("SERVER_HOST", "[::]:3000"),
        ("SERVER_HOST", ":::"),
        ("SERVER_HOST", " , ,"),
    ],
)
def test_a_value_that_cannot_be_is_named_and_not_echoed(name: str, value: str) -> None:
    [fault] = [fault for fault in faults({**PRODUCTION, name: value}) if fault.startswith(f"{name} ")]
    assert value not in fault.removeprefix(name)


@pytest.mark.parametrize(
    "key", ["short", "x" * 64, "please-change-me-please-change-me-please", "<your key of 32 bytes>" * 2]
)
def test_production_refuses_a_weak_signing_key(key: str) -> None:
    for name in ("JWT_SECRET_KEY", "JWT_PREVIOUS_KEYS"):
        [fault] = faults({**PRODUCTION, name: key})
        assert fault.startswith(f"{name} ") and key not in fault


def test_a_webhook_needs_its_address_and_its_secret() -> None:
    told = faults({**PRODUCTION, "OTP_WEBHOOK_URL": "", "OTP_WEBHOOK_SECRET": ""})
    assert [fault.split()[0] for fault in told] == ["OTP_WEBHOOK_URL", "OTP_WEBHOOK_SECRET"]


def test_stripe_needs_a_price_and_a_webhook_secret() -> None:
    told = faults({**PRODUCTION, "STRIPE_SECRET_KEY": "sk_test_1"})
    assert {fault.split()[0] for fault in told} == {"PRO_PRICE_ID", "STRIPE_WEBHOOK_SIGNING_SECRET"}


def test_traces_have_one_switch_and_go_where_otlp_says() -> None:
    general, specific = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    for environ, endpoint in (
        ({}, None),
        ({specific: "http://else:4318/x"}, None),
        ({general: "http://collector:4318/"}, "http://collector:4318/v1/traces"),
        ({general: "https://collector/otlp"}, "https://collector/otlp/v1/traces"),
        ({general: "http://collector:4318", specific: "http://else:4318/x"}, "http://else:4318/x"),
    ):
        assert config.load({**PRODUCTION, **environ}, "serve").traces_endpoint == endpoint
    told = faults({**PRODUCTION, general: "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert told == ["OTEL_EXPORTER_OTLP_PROTOCOL must be one of http/protobuf"]


def test_a_service_may_have_a_path_below_a_host() -> None:
    for given, base, prefix in (
        ("https://chat.example.org", "https://chat.example.org", ""),
        ("https://chat.example.org/", "https://chat.example.org", ""),
        ("https://chat.example.org/api", "https://chat.example.org/api", "/api"),
        ("https://chat.example.org:8443/a-b/v2.1//", "https://chat.example.org:8443/a-b/v2.1", "/a-b/v2.1"),
        ("http://[::1]:3000/chat", "http://[::1]:3000/chat", "/chat"),
    ):
        settings = config.load({**PRODUCTION, "PUBLIC_BASE_URL": given}, "serve")
        assert (settings.public_base_url, settings.path_prefix) == (base, prefix)


def test_one_may_listen_on_several_addresses() -> None:
    for given, listened in (
        ("::", "::"),
        ("[::]", "::"),
        (" 127.0.0.1 , ::1,", "127.0.0.1,::1"),
        ("localhost,localhost", "localhost"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ):
        assert config.load({**PRODUCTION, "SERVER_HOST": given}, "serve").server_host == listened


def test_a_trusted_network_may_be_written_in_either_family() -> None:
    settings = config.load({**PRODUCTION, "TRUSTED_PROXIES": "::ffff:10.0.0.0/104, 192.168.1.7, fd00::/8"}, "serve")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "192.168.1.7/32", "fd00::/8"]


def test_opentelemetry_finds_its_variables_of_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("OTEL_TRACES_SAMPLER=always_off\nOTEL_SERVICE_NAME=from-the-file\n")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "real")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "to be removed afterwards")
    monkeypatch.delenv("OTEL_TRACES_SAMPLER")
    assert environment.read(tmp_path)["OTEL_SERVICE_NAME"] == "real"
    assert (os.environ["OTEL_TRACES_SAMPLER"], os.environ["OTEL_SERVICE_NAME"]) == ("always_off", "real")


def test_the_env_file_is_read_and_real_variables_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text('PROMPT_WORKERS=7\nGEMINI_MODEL="gemini-x" # comment\nBASIC_DAILY_PROMPTS=1\n')
    monkeypatch.setenv("BASIC_DAILY_PROMPTS", "9")
    settings = config.load({**environment.read(tmp_path), **PRODUCTION}, "serve")
    assert (settings.prompt_workers, settings.gemini_model, settings.basic_daily_prompts) == (7, "gemini-x", 9)


def test_commands_on_the_store_need_the_database_alone() -> None:
    assert config.load({"DATABASE_URL": "postgresql://db/chat"}, "store").database_url
    assert [fault.split()[0] for fault in faults({}, "store")] == ["DATABASE_URL"]
