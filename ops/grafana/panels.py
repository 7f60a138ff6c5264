"""What the dashboard shows: questions in the order in which somebody who was woken asks them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One graph, or a number (`stat`): queries with their legends, and the unit of what they give."""

    title: str
    unit: str
    queries: dict[str, str]
    stat: bool = False
    description: str = ""


@dataclass(frozen=True)
class Row:
    """A question and the panels that answer it."""

    question: str
    panels: tuple[Panel, ...]


RATE = "[$__rate_interval]"


def p95(metric: str) -> str:
    """The query of a duration that 95 in 100 do not exceed."""
    return f"histogram_quantile(0.95, sum by (le) (rate(gembackend_{metric}_duration_seconds_bucket{RATE})))"


DASHBOARD = (
    Row(
        "Are users served?",
        (
            Panel("Processes up", "short", {"up": 'sum(up{job="gembackend"})'}, stat=True),
            Panel("Requests that fail", "percentunit", {"failing": "gembackend:http_errors:ratio_rate5m"}, stat=True),
            Panel(
                "Prompts that fail for good",
                "percentunit",
                {"failing": "gembackend:prompts_failed:ratio_rate15m"},
                stat=True,
            ),
            Panel("From prompt to answer, 95 %", "s", {"p95": "gembackend:prompt_duration_seconds:p95_5m"}, stat=True),
            Panel(
                "Requests by status",
                "reqps",
                {"{{status}}": "sum by (status) (route_method_status:gembackend_http_requests:rate5m)"},
            ),
            Panel(
                "Slowest routes, 99 %",
                "s",
                {"{{route}}": "topk(8, route:gembackend_http_request_duration_seconds:p99_5m)"},
                description="Routes on which a client may ask to wait take as long as the client asked for.",
            ),
            Panel(
                "Problems by code",
                "reqps",
                {"{{code}}": f"sum by (code) (rate(gembackend_http_problems_total{RATE})) > 0"},
            ),
            Panel("Requests in flight", "short", {"{{instance}}": "gembackend_http_requests_in_flight"}),
            Panel("Listeners to rooms", "short", {"{{instance}}": "gembackend_event_streams_open"}),
            Panel(
                "Why streams ended",
                "ops",
                {"{{reason}}": f"sum by (reason) (rate(gembackend_event_streams_closed_total{RATE}))"},
            ),
        ),
    ),
    Row(
        "Is the queue moving?",
        (
            Panel("Prompts waiting", "short", {"waiting": "max(gembackend_queue_depth)"}, stat=True),
            Panel("The oldest has waited", "s", {"age": "max(gembackend_queue_oldest_age_seconds)"}, stat=True),
            Panel(
                "Accepted and finished",
                "ops",
                {
                    "accepted": f"sum(rate(gembackend_prompts_accepted_total{RATE}))",
                    "{{outcome}}": "outcome:gembackend_prompts_finished:rate5m",
                },
            ),
            Panel(
                "Refused and tried again",
                "ops",
                {
                    "refused: {{reason}}": f"sum by (reason) (rate(gembackend_prompts_refused_total{RATE}))",
                    "again: {{code}}": f"sum by (code) (rate(gembackend_prompts_retried_total{RATE}))",
                },
            ),
            Panel("Prompts in flight", "short", {"{{instance}}": "gembackend_prompts_in_flight"}),
            Panel(
                "Brought into the search",
                "ops",
                {
                    "messages": f"sum(rate(gembackend_search_indexed_total{RATE}))",
                    "prompts that wait": "max(gembackend_search_backlog)",
                },
            ),
            Panel(
                "Hints, sweeps, takeovers",
                "ops",
                {
                    "hints: {{sender}}": f"sum by (sender) (rate(gembackend_hints_sent_total{RATE}))",
                    "hints dropped": f"sum(rate(gembackend_hints_dropped_total{RATE}))",
                    "sweeps": f"sum(rate(gembackend_sweeps_total{RATE}))",
                    "takeovers": f"sum(rate(gembackend_takeovers_total{RATE}))",
                    "leases lost": f"sum(rate(gembackend_leases_lost_total{RATE}))",
                    "stale writes": f"sum(rate(gembackend_stale_writes_total{RATE}))",
                },
            ),
        ),
    ),
    Row(
        "Is Gemini well?",
        (
            Panel("Breaker open", "short", {"open": "sum(gembackend_gemini_breaker_open)"}, stat=True),
            Panel("May be in flight", "short", {"limit": "sum(gembackend_gemini_concurrency_limit)"}, stat=True),
            Panel("Calls by status", "ops", {"{{status}}": "status:gembackend_gemini_calls:rate5m"}),
            Panel("Time of a call, 95 %", "s", {"p95": "gembackend:gemini_call_duration_seconds:p95_5m"}),
            Panel(
                "Until a streamed reply begins, 95 %",
                "s",
                {
                    "p95": "histogram_quantile(0.95, sum by (le) "
                    f"(rate(gembackend_gemini_first_token_seconds_bucket{RATE})))"
                },
            ),
            Panel(
                "Tokens",
                "short",
                {"{{direction}}": f"sum by (direction) (rate(gembackend_gemini_tokens_total{RATE}))"},
            ),
        ),
    ),
    Row(
        "Are the stores well?",
        (
            Panel(
                "Time of a transaction, 95 %",
                "s",
                {step: p95(step) for step in ("accept", "claim", "commit")},
            ),
            Panel(
                "Prompts in one transaction, mean",
                "short",
                {
                    step: f"sum(rate(gembackend_{step}_batch_size_sum{RATE}))"
                    f" / sum(rate(gembackend_{step}_batch_size_count{RATE}))"
                    for step in ("accept", "commit")
                },
            ),
            Panel(
                "Database connections at work",
                "percentunit",
                {"{{instance}} {{pool}}": "instance_pool:gembackend_database_connections:ratio"},
            ),
            Panel(
                "Redis away",
                "ops",
                {
                    "hints dropped": f"sum(rate(gembackend_hints_dropped_total{RATE}))",
                    "prompts found without": f"sum(rate(gembackend_prompts_found_total{RATE}))",
                    "limits kept locally": f"sum(rate(gembackend_rate_limits_local_total{RATE}))",
                },
            ),
        ),
    ),
    Row(
        "Accounts and billing",
        (
            Panel(
                "One-time codes",
                "ops",
                {
                    "{{purpose}} {{outcome}}": f"sum by (purpose, outcome) (rate(gembackend_otp_codes_total{RATE}))",
                },
            ),
            Panel(
                "Refused",
                "ops",
                {
                    "password {{reason}}": f"sum by (reason) (rate(gembackend_login_failures_total{RATE}))",
                    "limit by {{by}}": f"sum by (by) (rate(gembackend_rate_limited_total{RATE}))",
                    "hash": f"sum(rate(gembackend_password_hashes_refused_total{RATE}))",
                },
            ),
            Panel(
                "Time of a password hash, 95 %",
                "s",
                {"p95": p95("password_hash")},
            ),
            Panel(
                "Stripe events",
                "ops",
                {
                    "{{outcome}}": f"sum by (outcome) (rate(gembackend_billing_events_total{RATE}))",
                    "drift": f"sum(rate(gembackend_billing_drift_total{RATE}))",
                },
            ),
            Panel("Oldest event without its effect", "s", {"age": "max(gembackend_billing_oldest_event_age_seconds)"}),
            Panel(
                "Calls to Stripe",
                "ops",
                {
                    "{{operation}} {{outcome}}": "sum by (operation, outcome) ("
                    f"rate(gembackend_stripe_call_duration_seconds_count{RATE}))"
                },
            ),
        ),
    ),
    Row(
        "The processes",
        (
            Panel("Version", "short", {"{{version}}": "count by (version) (gembackend_build_info)"}, stat=True),
            Panel("Event loop late, 99 %", "s", {"{{instance}}": "instance:gembackend_event_loop_lag_seconds:p99_5m"}),
            Panel("CPU", "percentunit", {"{{instance}}": f'rate(process_cpu_seconds_total{{job="gembackend"}}{RATE})'}),
            Panel("Memory", "bytes", {"{{instance}}": 'process_resident_memory_bytes{job="gembackend"}'}),
            Panel(
                "Actors restarted",
                "ops",
                {"{{actor}}": f"sum by (actor) (rate(gembackend_actor_restarts_total{RATE}))"},
            ),
        ),
    ),
)
