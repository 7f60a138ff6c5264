"""Every metric of the service, declared once. Base units; every label has a bounded set of values."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    gc_collector,
    platform_collector,
    process_collector,
)

from gembackend import __version__
from gembackend.plumbing.faults import CODES as FAULT_CODES

disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody asks when a counter began
REGISTRY = CollectorRegistry(auto_describe=True)
process_collector.ProcessCollector(registry=REGISTRY)
platform_collector.PlatformCollector(registry=REGISTRY)
gc_collector.GCCollector(registry=REGISTRY)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_GEMINI_SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, namespace="gembackend", registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, namespace="gembackend", registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
    return Histogram(name, text, labels, namespace="gembackend", registry=REGISTRY, buckets=buckets)


BUILD = Info("gembackend_build", "What this is.", registry=REGISTRY)
BUILD.info({"version": __version__})

HTTP_SECONDS = _histogram("http_request_duration_seconds", "Time to answer a request.", "method", "route", "status")
HTTP_IN_FLIGHT = _gauge("http_requests_in_flight", "Requests being answered now.")
CLIENTS_CUT = _counter("clients_cut", "Connections cut because the client read nothing of what was there for it.")
HTTP_PROBLEMS = _counter("http_problems", "Requests answered with a problem document, by its code.", "code")

PROMPTS_ACCEPTED = _counter("prompts_accepted", "Prompts accepted.")
PROMPTS_REFUSED = _counter("prompts_refused", "Prompts not accepted, by reason.", "reason")
PROMPTS_FINISHED = _counter("prompts_finished", "Prompts finished, by outcome and error code.", "outcome", "code")
PROMPTS_RETRIED = _counter("prompts_retried", "Attempts that will be tried again, by code.", "code")
PROMPTS_IN_FLIGHT = _gauge("prompts_in_flight", "Prompts claimed by this process and not yet committed.")
PROMPTS_SECONDS = _histogram(
    "prompt_duration_seconds", "Time from acceptance to the stored answer.", buckets=_GEMINI_SECONDS
)
QUEUE_DEPTH = _gauge("queue_depth", "Unfinished prompts in the database.")
QUEUE_OLDEST_SECONDS = _gauge("queue_oldest_age_seconds", "Age of the oldest prompt that waits for its turn.")
ACCEPT_BATCH = _histogram("accept_batch_size", "Prompts accepted in one commit.", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
COMMIT_BATCH = _histogram("commit_batch_size", "Outcomes stored in one commit.", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
ACCEPT_SECONDS = _histogram("accept_duration_seconds", "Time of one accepting transaction.")
CLAIM_SECONDS = _histogram("claim_duration_seconds", "Time of one batched claim.")
COMMIT_SECONDS = _histogram("commit_duration_seconds", "Time of one batched commit of outcomes.")
ENDINGS_ASIDE = _gauge("endings_put_aside", "Outcomes not stored yet, because their rows are locked or take too long.")
STALE_WRITES = _counter("stale_writes", "Outcomes that came after another process had taken the prompt over.")
TAKEOVERS = _counter("takeovers", "Prompts claimed after another process's lease ran out.")
LEASES_LOST = _counter("leases_lost", "Prompts whose lease another process took over while they ran here.")
HINTS_SENT = _counter("hints_sent", "Stream entries added, by sender.", "sender")
HINTS_DROPPED = _counter("hints_dropped", "Hints not sent because Redis was away; what they were for is found without.")
HINTS_UNAVAILABLE = _gauge("hints_unavailable", "1 while Redis does not serve and work is found in PostgreSQL.")
FOUND = _counter("prompts_found", "Prompts claimed without a hint, while Redis did not serve.")
SWEEPS = _counter("sweeps", "Sweeps of the queue made as the leader.")
CONCURRENCY_LIMIT = _gauge("gemini_concurrency_limit", "Prompts that may be in flight to Gemini now.")
BREAKER_OPEN = _gauge("gemini_breaker_open", "1 while Gemini is treated as down and prompts wait.")

GEMINI_SECONDS = _histogram(
    "gemini_call_duration_seconds", "Time of one call to Gemini, by status.", "status", buckets=_GEMINI_SECONDS
)
GEMINI_FIRST_TOKEN_SECONDS = _histogram(
    "gemini_first_token_seconds", "Time until a streamed reply began to come.", buckets=_GEMINI_SECONDS
)
GEMINI_TOKENS = _counter("gemini_tokens", "Tokens that Gemini counted, by direction.", "direction")

SEARCH_INDEXED = _counter("search_indexed", "Messages brought into the search by this process.")
SEARCH_BACKLOG = _gauge("search_backlog", "Prompts whose messages are not in the search yet, counted up to 10,000.")
SEARCH_OLDEST_SECONDS = _gauge(
    "search_oldest_age_seconds", "How long the message waits for the search that waits longest."
)

STREAMS_OPEN = _gauge("event_streams_open", "Listeners to rooms (server-sent events) connected now.")
STREAMS_CLOSED = _counter("event_streams_closed", "Listeners to rooms that have gone, by reason.", "reason")
STREAM_EVENTS = _counter("events_sent", "Events sent to listeners, by name.", "event")

ACTOR_RESTARTS = _counter("actor_restarts", "Actors restarted after a crash.", "actor")

POOL_IN_USE = _gauge("database_connections_in_use", "Database connections doing work, by pool.", "pool")
POOL_OPEN = _gauge("database_connections_open", "Database connections open, by pool.", "pool")
POOL_MAX = _gauge("database_connections_max", "Database connections that may be open, by pool.", "pool")
LOOP_LAG_SECONDS = _histogram("event_loop_lag_seconds", "How late the event loop wakes a timer, twice a second.")

HASH_SECONDS = _histogram("password_hash_duration_seconds", "Time of one password hash, waiting included.")
HASHES_REFUSED = _counter("password_hashes_refused", "Hashes not made because too many were waiting.")
LOGIN_FAILURES = _counter("login_failures", "Passwords refused, by reason: wrong, or the login is locked.", "reason")
CODES = _counter("otp_codes", "One-time codes, by purpose and what became of them.", "purpose", "outcome")
CODES_IN_RESPONSES = _gauge("otp_codes_in_responses", "1 while one-time codes are shown in replies.")
RATE_LIMITED = _counter("rate_limited", "Requests refused by a rate limit, by what was limited.", "by")
RATE_LIMITS_LOCAL = _counter("rate_limits_local", "Rate limits decided by this process alone, because Redis was away.")
TOKEN_VERSIONS = _histogram(
    "token_version_batch_size", "Users whose token version one query read.", buckets=(1, 4, 16, 64, 256, 1024)
)

BILLING_EVENTS = _counter("billing_events", "Stripe events, by what became of them.", "outcome")
BILLING_OLDEST_SECONDS = _gauge("billing_oldest_event_age_seconds", "Age of the oldest event without its effect.")
BILLING_SYNCS = _counter("billing_syncs", "Fetches of a customer's subscriptions, by outcome.", "outcome")
BILLING_DRIFT = _counter("billing_drift", "Customers found changed at Stripe although no event had said so.")
RECONCILIATION_FAILING = _gauge("reconciliation_step_failing", "1 while this step of reconciliation fails.", "step")
STRIPE_FORBIDDEN = _gauge("stripe_forbidden", "1 while Stripe refuses an operation to our key.", "operation")
STRIPE_SECONDS = _histogram(
    "stripe_call_duration_seconds", "Time of one operation at Stripe, by outcome.", "operation", "outcome"
)

# A series that begins with its first event hides that event from increase(): what alerts watch is there from the start.
for _code in FAULT_CODES:
    HTTP_PROBLEMS.labels(_code)
PROMPTS_REFUSED.labels("backlog_full")
BILLING_EVENTS.labels("parked")
CODES.labels("login", "exhausted")
CODES.labels("reset", "exhausted")
CODES.labels("reset", "turned_away")
BILLING_EVENTS.labels("thin")
for _reason in ("client_gone", "session_ended", "room_deleted", "shutting_down", "time_over", "error"):
    STREAMS_CLOSED.labels(_reason)
