"""The actor kernel: typed mailboxes, a life cycle, a supervisor. It knows no feature.

An actor is a mailbox, a small state and one loop. No actor reaches into another: it tells
(sends and goes on) or asks (sends and awaits the reply).
"""

from gembackend.actors.actor import Actor, Periodic, State
from gembackend.actors.mailbox import Asked, Mailbox, MailboxClosed, MailboxFull, ask
from gembackend.actors.stopping import each_alone
from gembackend.actors.supervisor import Budget, Supervisor

__all__ = [
    "Actor",
    "Asked",
    "Budget",
    "Mailbox",
    "MailboxClosed",
    "MailboxFull",
    "Periodic",
    "State",
    "Supervisor",
    "ask",
    "each_alone",
]
