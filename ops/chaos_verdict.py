"""What a chaos run found, and whether that keeps the promises."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.acceptance.accounting import Account

SLOWDOWN = 2.0
"""Other people's p99 beside rude clients stays below so many times what it is without them."""
MEMORY = 400 * 2**20
"""Bytes that a process stays below."""
FEW_BACKENDS = 5
"""How many backends there may be beside the pools': of a process that was killed, of statements being cancelled."""
QUIET = 0.75
"""With more of the cores in use before anybody is rude, a p99 says how busy the machine is, and is not judged."""
ENOUGH = 200
"""A p99 of fewer requests says nothing and is not judged."""

KEPT_SO_FAR = (
    f"Every promise was kept but for the slowdown, which could not be judged: that takes {ENOUGH} requests of a kind, "
    f"and cores that are in use to {QUIET:.0%} at most without the rude."
)


@dataclass(frozen=True, slots=True)
class Recovery:
    """A fault, and how many seconds it took until every room went on."""

    fault: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How many seconds requests of one kind took without rude clients and beside them, no fault being under way."""

    kind: str
    undisturbed: Sequence[float]
    beside: Sequence[float]

    @property
    def slowdown(self) -> float | None:
        """How many times the undisturbed p99 is the other; None when either was measured too little."""
        if min(len(self.undisturbed), len(self.beside)) < ENOUGH:
            return None
        return p99(self.beside) / p99(self.undisturbed)


@dataclass(frozen=True, slots=True)
class Burden:
    """What rude clients cost: the paces of somebody else, how many of his requests were not answered as they should,
    the largest resident memory of a process in bytes, and the most backends of all processes together."""

    paces: Sequence[Pace] = ()
    refused: int = 0
    memory: int = 0
    backends: int = 0
    pools: int = 0
    busy: Sequence[float] = ()
    """How much of all cores was in use without rude clients and beside them, by whatever runs on the machine."""
    done: dict[str, int] = field(default_factory=dict)
    """How often rude clients did what."""

    @property
    def slowest(self) -> Pace | None:
        """The kind of requests that suffered most, of those that can be judged."""
        return max((pace for pace in self.paces if pace.slowdown), key=lambda pace: pace.slowdown or 0, default=None)

    @property
    def judged(self) -> bool:
        """Whether enough was measured, on a machine that had something left, to tell how others fared."""
        return self.slowest is not None and all(share <= QUIET for share in self.busy[:1])

    @property
    def borne(self) -> bool:
        """Whether nobody else paid, as far as can be told."""
        slowdown = ((self.slowest and self.slowest.slowdown) or 0.0) if self.judged else 0.0
        within = self.memory < MEMORY and self.backends <= self.pools + FEW_BACKENDS
        return slowdown < SLOWDOWN and self.refused == 0 and within


def p99(seconds: Sequence[float]) -> float:
    """What 99 of 100 stay below or at."""
    return sorted(seconds)[(len(seconds) * 99 - 1) // 100]


def verdict(
    result: Account, recoveries: Sequence[Recovery], burden: Burden, troubles: Sequence[str]
) -> tuple[str, int]:
    """What a person reads at the end, and the exit status."""
    slowest = max(recoveries, key=lambda one: one.seconds, default=Recovery("no fault at all", 0.0))
    kept = result.clean and burden.borne and not troubles
    lines = [
        f"accepted         {result.accepted:7,}  prompts that a client was told were taken",
        f"answered         {result.answered:7,}",
        f"failed           {result.failed:7,}  given up after their attempts, refunded, their users told why",
        f"lost             {result.lost:7,}",
        f"repeated         {result.repeated:7,}",
        f"out of order     {result.out_of_order:7,}",
        f"miscounted       {result.miscounted:7,}  units of quota",
        f"misheard         {result.misheard:7,}  not told once and whole to a listener on a bad line",
        f"faults           {len(recoveries):7,}",
        f"longest recovery {slowest.seconds:7.1f}  seconds until every room went on, after: {slowest.fault}",
        *_told(burden),
        *troubles,
        ("Every promise was kept." if burden.judged else KEPT_SO_FAR) if kept else "PROMISES WERE BROKEN.",
    ]
    return "\n".join(lines), 0 if kept else 1


def _told(burden: Burden) -> list[str]:
    worst = burden.slowest
    ratio = f"{worst.slowdown:7.2f}" if worst else "   none"
    which = f"of: {worst.kind}" if worst else "too little was measured to tell"
    return [
        f"slowdown         {ratio}  times the undisturbed p99, for others beside rude clients, {which}",
        *(_measured(pace) for pace in burden.paces if pace.undisturbed and pace.beside),
        *(
            [f"cores in use     {100 * burden.busy[0]:6.0f}%  without them, {100 * burden.busy[1]:.0f}% beside them"]
            if burden.busy
            else ()
        ),
        f"refused          {burden.refused:7,}  requests of others, no fault being under way",
        f"largest memory   {burden.memory / 2**20:7.0f}  MB resident in one process",
        f"most backends    {burden.backends:7,}  of PostgreSQL, for pools of {burden.pools} connections together",
        *(f"rude clients     {count:7,}  {what}" for what, count in sorted(burden.done.items())),
    ]


def _measured(pace: Pace) -> str:
    middle, top = ([statistic(times) * 1000 for times in (pace.undisturbed, pace.beside)] for statistic in (_p50, p99))
    return (
        f"  {pace.kind}: p50 {middle[0]:.1f} and {middle[1]:.1f} ms, p99 {top[0]:.1f} and {top[1]:.1f} ms, "
        f"{len(pace.undisturbed):,} and {len(pace.beside):,} times"
    )


def _p50(seconds: Sequence[float]) -> float:
    return sorted(seconds)[(len(seconds) - 1) // 2]
