"""Settings, read once from the environment and validated together.

Every fault is collected before any is reported, each names its variable, and no value is ever echoed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from gembackend.environment import ConfigError as ConfigError
from gembackend.environment import Reader
from gembackend.plumbing import addresses, database_settings, redis_address, traces
from gembackend.plumbing.addresses import Network as Network

Mode = Literal["dev", "serve", "store"]
"""What the settings are for: `store` commands need the database alone."""

_DATABASE_EXAMPLE = "PostgreSQL, for example postgresql://user:pass@host:5432/name"
_NO_OTEL = "needs OpenTelemetry, which is not installed: pip install 'gembackend[otel]' (the container image has it)"
_PLACEHOLDER = re.compile(r"change.?(me|this)|replace.?(me|this)|placeholder|your.?(jwt|secret|key|own)|^<.*>$", re.I)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `requests` in any `seconds`."""

    requests: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the environment decides. Times are seconds; `None` means unset.

    Under `dev`, what is `None` here and needed is filled in by `embedded.services`.
    """

    environment: Literal["development", "production"]
    server_host: str
    server_port: int
    metrics_port: int | None
    public_base_url: str
    trusted_proxies: tuple[Network, ...]
    database_url: str | None
    database_pool_size: int
    database_pooler: Literal["auto", "session", "transaction"]
    database_connect_seconds: float
    redis_url: str | None
    jwt_secret_key: str | None
    jwt_previous_keys: tuple[str, ...]
    jwt_ttl_seconds: int
    otp_delivery: Literal["response", "webhook"]
    otp_webhook_url: str | None
    otp_webhook_secret: str | None
    otp_ttl_seconds: int
    otp_resend_seconds: int
    otp_max_attempts: int
    auth_rate_limit: RateLimit
    basic_daily_prompts: int
    prompt_max_chars: int
    prompt_workers: int
    prompt_history_messages: int
    prompt_max_attempts: int
    prompt_lease_seconds: float
    prompt_backlog_limit: int
    prompt_room_limit: int
    gemini_api_key: str | None
    gemini_model: str
    gemini_fallback_model: str | None
    gemini_endpoint: str | None
    gemini_timeout_seconds: float
    stripe_secret_key: str | None
    pro_price_ids: tuple[str, ...]
    stripe_webhook_signing_secrets: tuple[str, ...]
    stripe_api_base: str | None
    past_due_grace_days: int
    shutdown_grace_seconds: float
    traces_endpoint: str | None
    log_level: str
    log_format: Literal["json", "console"]
    data_dir: Path
    warnings: tuple[str, ...]
    """What is allowed and yet hardly meant, a sentence each."""

    @property
    def path_prefix(self) -> str:
        """The path below which browsers see the service, such as `/api`; empty when it has a host to itself."""
        return urlsplit(self.public_base_url).path


def _rate_limit(raw: str) -> RateLimit:
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", raw)
    if not match:
        raise ValueError
    return RateLimit(int(match[1]), int(match[2]))


def _redis_url(env: Reader) -> str | None:
    name = "REDIS_URL" if env.given("REDIS_URL") else "UPSTASH_URL"

    def parse(raw: str) -> str | None:
        redis_address.read(raw)
        return raw

    return env.parsed(name, parse, None, "")


def _gemini_endpoint(env: Reader) -> str | None:
    """Where Gemini is; gRPC wants a host and a port, and takes what follows for a part of the port."""
    endpoint = env.url("GEMINI_ENDPOINT", ("grpc", "grpcs"))
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.port is None or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        env.refuse("GEMINI_ENDPOINT", "must be grpc://host:port or grpcs://host:port and nothing more")
    return f"{parts.scheme}://{parts.netloc}"


def _signing_key(env: Reader) -> str | None:
    key = env.key("JWT_SECRET_KEY")
    if key and "," in key:
        env.refuse(
            "JWT_SECRET_KEY",
            "must not have a comma in it: once it is replaced it belongs into JWT_PREVIOUS_KEYS, which commas divide",
        )
        return None
    return key


def _directory(raw: str) -> Path:
    try:
        return Path(raw).expanduser().resolve()
    except (OSError, RuntimeError):  # nobody's home, a circle of links
        raise ValueError from None


def _traces_endpoint(env: Reader) -> str | None:
    """Where spans go, if anywhere: OTLP's variable for traces is the whole URL, the general one a base."""
    base = env.url("OTEL_EXPORTER_OTLP_ENDPOINT", ("http", "https"))
    if base is None:
        return None
    env.choice("OTEL_EXPORTER_OTLP_PROTOCOL", ("http/protobuf",), "http/protobuf")
    whole = env.url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ("http", "https"))
    return whole or f"{base.rstrip('/')}/v1/traces"


def weak_key(key: str) -> str | None:
    """Why this signing key is not fit for production, or None; the key itself is not in the answer."""
    if len(key.encode()) < 32:
        return "must be at least 32 bytes"
    if len(set(key)) < 4:
        return "repeats too few characters; make one with: openssl rand -base64 48"
    if _PLACEHOLDER.search(key):
        return "is a placeholder; make one with: openssl rand -base64 48"
    return None


def load(environ: Mapping[str, str], mode: Mode) -> Settings:
    """Settings out of an environment; raises ConfigError with every fault at once."""
    env = Reader(environ)
    dev = mode == "dev"
    port = env.integer("SERVER_PORT", 3000, 0, 65535)
    url, connect_seconds = database_settings.read(env)
    settings = Settings(
        environment=env.choice(  # type: ignore[arg-type]
            "ENVIRONMENT", ("development", "production"), "development" if dev else "production"
        ),
        server_host=env.parsed(
            "SERVER_HOST",
            lambda raw: ",".join(addresses.hosts(raw)),
            "127.0.0.1" if dev else "0.0.0.0",
            "addresses or names to listen on, comma-separated and without ports",
        ),
        server_port=port,
        metrics_port=env.integer("METRICS_PORT", 0, 1, 65535) or None,
        public_base_url=env.parsed(
            "PUBLIC_BASE_URL",
            addresses.base_url,
            f"http://127.0.0.1:{port}",
            "a URL starting with http:// or https://, with or without a path, and nothing behind it",
        ),
        trusted_proxies=env.parsed("TRUSTED_PROXIES", addresses.networks, (), "a comma-separated list of CIDRs"),
        database_url=url,
        database_pool_size=env.integer("DATABASE_POOL_SIZE", 10, 2, 500),
        database_pooler=env.choice("DATABASE_POOLER", ("auto", "session", "transaction"), "auto"),  # type: ignore[arg-type]
        database_connect_seconds=env.seconds("DATABASE_CONNECT_SECONDS", connect_seconds, 0.1, 120),
        redis_url=_redis_url(env),
        jwt_secret_key=_signing_key(env),
        jwt_previous_keys=env.keys("JWT_PREVIOUS_KEYS"),
        jwt_ttl_seconds=env.integer("JWT_TTL_SECONDS", 1200, 1, 31_536_000),
        otp_delivery=env.choice("OTP_DELIVERY", ("response", "webhook"), "response"),  # type: ignore[arg-type]
        otp_webhook_url=env.url("OTP_WEBHOOK_URL", ("http", "https")),
        otp_webhook_secret=env.key("OTP_WEBHOOK_SECRET"),
        otp_ttl_seconds=env.integer("OTP_TTL_SECONDS", 300, 1, 86_400),
        otp_resend_seconds=env.integer("OTP_RESEND_SECONDS", 30, 0, 86_400),
        otp_max_attempts=env.integer("OTP_MAX_ATTEMPTS", 5, 1, 100),
        auth_rate_limit=env.parsed(
            "AUTH_RATE_LIMIT", _rate_limit, RateLimit(30, 300), "requests/seconds, for example 30/300"
        ),
        basic_daily_prompts=env.integer("BASIC_DAILY_PROMPTS", 5, 0, 1_000_000_000),
        prompt_max_chars=env.integer("PROMPT_MAX_CHARS", 8000, 1, 60_000),
        prompt_workers=env.integer("PROMPT_WORKERS", 64, 1, 10_000),
        prompt_history_messages=env.integer("PROMPT_HISTORY_MESSAGES", 20, 0, 1000),
        prompt_max_attempts=env.integer("PROMPT_MAX_ATTEMPTS", 5, 1, 100),
        prompt_lease_seconds=env.seconds("PROMPT_LEASE_SECONDS", 30, 1, 3600),
        prompt_backlog_limit=env.integer("PROMPT_BACKLOG_LIMIT", 10_000, 1, 1_000_000_000),
        prompt_room_limit=env.integer("PROMPT_ROOM_LIMIT", 20, 1, 1_000_000),
        gemini_api_key=env.word("GEMINI_API_KEY"),
        gemini_model=env.word("GEMINI_MODEL") or "gemini-2.5-flash-lite",
        gemini_fallback_model=env.word("GEMINI_FALLBACK_MODEL"),
        gemini_endpoint=_gemini_endpoint(env),
        gemini_timeout_seconds=env.seconds("GEMINI_TIMEOUT_SECONDS", 30, 0.05, 600),
        stripe_secret_key=env.word("STRIPE_SECRET_KEY"),
        pro_price_ids=env.words("PRO_PRICE_ID"),
        stripe_webhook_signing_secrets=env.words("STRIPE_WEBHOOK_SIGNING_SECRET"),
        stripe_api_base=env.url("STRIPE_API_BASE", ("http", "https")),
        past_due_grace_days=env.integer("PAST_DUE_GRACE_DAYS", 7, 0, 365),
        shutdown_grace_seconds=env.seconds("SHUTDOWN_GRACE_SECONDS", 25, 1, 3600),
        traces_endpoint=_traces_endpoint(env),
        log_level=env.choice("LOG_LEVEL", ("debug", "info", "warning", "error"), "info"),
        log_format=env.choice("LOG_FORMAT", ("json", "console"), "console" if dev else "json"),  # type: ignore[arg-type]
        data_dir=env.parsed("GEMBACKEND_DATA_DIR", _directory, Path(".data").resolve(), "the path of a directory"),
        warnings=(),
    )
    misspelt = env.misspelt()
    faults = env.faults + _conflicts(settings, env, mode)
    if faults:
        raise ConfigError(faults + misspelt)
    return replace(settings, warnings=(*misspelt, *_warnings(settings)))


def _conflicts(settings: Settings, env: Reader, mode: Mode) -> list[str]:
    """What is wrong between variables, or missing: the rules of `serve` and of production."""
    faults = []
    if settings.otp_delivery == "webhook":
        for name in ("OTP_WEBHOOK_URL", "OTP_WEBHOOK_SECRET"):
            if not env.given(name):
                faults.append(f"{name} is required when OTP_DELIVERY is webhook")
    if mode == "store" and not _either(env, "DATABASE_URL", "DB_HOST"):
        faults.append(f"DATABASE_URL is required: {_DATABASE_EXAMPLE}")
    if mode == "serve":
        required = {
            "DATABASE_URL": _DATABASE_EXAMPLE,
            "REDIS_URL": "Redis, for example redis://host:6379/0",
            "JWT_SECRET_KEY": "a signing key of at least 32 bytes; make one with: openssl rand -base64 48",
            "GEMINI_API_KEY": "a key of the Gemini API, from https://aistudio.google.com/apikey (or GEMINI_ENDPOINT)",
            "OTP_DELIVERY": "webhook, or response to return codes in replies (never for real users)",
        }
        given = {
            "DATABASE_URL": _either(env, "DATABASE_URL", "DB_HOST"),
            "REDIS_URL": _either(env, "REDIS_URL", "UPSTASH_URL"),
            "GEMINI_API_KEY": _either(env, "GEMINI_API_KEY", "GEMINI_ENDPOINT"),
        }
        for name, what in required.items():
            if not given.get(name, env.given(name)):
                faults.append(f"{name} is required: {what}")
    if settings.environment == "production":
        named = [("JWT_SECRET_KEY", settings.jwt_secret_key)]
        named += [("JWT_PREVIOUS_KEYS", key) for key in settings.jwt_previous_keys]
        faults += [f"{name} {why}" for name, key in named if key and (why := weak_key(key))]
    elif settings.jwt_secret_key and len(settings.jwt_secret_key.encode()) < 32:
        faults.append("JWT_SECRET_KEY must be at least 32 bytes")
    if settings.traces_endpoint and mode != "store" and not traces.installed():
        faults.append(f"OTEL_EXPORTER_OTLP_ENDPOINT {_NO_OTEL}")
    if settings.stripe_secret_key:
        if not env.given("PRO_PRICE_ID"):
            faults.append("PRO_PRICE_ID is required when STRIPE_SECRET_KEY is set: the price of the Pro plan")
        if not env.given("STRIPE_WEBHOOK_SIGNING_SECRET"):
            faults.append("STRIPE_WEBHOOK_SIGNING_SECRET is required when STRIPE_SECRET_KEY is set")
    return faults


def _either(env: Reader, *names: str) -> bool:
    return any(env.given(name) for name in names)


def _warnings(settings: Settings) -> list[str]:
    if settings.environment == "production" and settings.otp_delivery == "response":
        return ["OTP_DELIVERY=response lets anyone log in as anyone: it is for trying out"]
    return []
