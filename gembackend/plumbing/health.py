"""How the things are that the service stands on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is the matter with one of them, in words for a person. Where it is not `serious`, the service is degraded,
    but does its work: requests need not go elsewhere."""

    reason: str
    serious: bool = True
