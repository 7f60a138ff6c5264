"""What the Stripe stand-in remembers: objects by kind, and the events that tell of their changes."""

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gembackend.embedded.stripe_wire import Object, missing, new_id, page

EVENTS_KEPT = 500

_KINDS = ("customers", "sessions", "portals", "subscriptions", "events")


class State:
    """Customers, Checkout and portal sessions, subscriptions and events, as Stripe's JSON objects.

    `tell` is called with every new event. With a `path` the state is kept there, so that it outlives a restart.
    Members of an object whose names begin with an underscore are the stand-in's own and are not shown.
    """

    def __init__(self, tell: Callable[[Object], None], path: Path | None = None) -> None:
        self.webhook_secret = f"whsec_{secrets.token_hex(24)}"
        self.customers: dict[str, Object] = {}
        self.sessions: dict[str, Object] = {}
        self.portals: dict[str, Object] = {}
        self.subscriptions: dict[str, Object] = {}
        self.events: dict[str, Object] = {}
        self._tell = tell
        self._path = path
        if path is not None and path.exists():
            for name, value in json.loads(path.read_text()).items():
                setattr(self, name, value)

    def save(self) -> None:
        """Keep the state, readable by its owner alone; of the delivered events only the newest."""
        if self._path is None:
            return
        for event_id in [each["id"] for each in self.events.values() if not each["pending_webhooks"]][:-EVENTS_KEPT]:
            del self.events[event_id]
        state: Object = {kind: getattr(self, kind) for kind in _KINDS} | {"webhook_secret": self.webhook_secret}
        draft = self._path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(state))
        draft.replace(self._path)

    def add(self, kind: str, prefix: str, name: str, **fields: Any) -> Object:
        """Make an object of a kind."""
        made = {"id": new_id(prefix), "object": name, "created": int(time.time()), "livemode": False} | fields
        getattr(self, kind)[made["id"]] = made
        return made

    def emit(self, kind: str, about: Object) -> None:
        """Tell of a change, with the object as it is now."""
        self._tell(self.add("events", "evt", "event", type=kind, pending_webhooks=1, data={"object": shown(about)}))

    def list_events(self, params: Object) -> Object:
        """Events, newest first, by type and by whether a webhook has taken them."""
        found = list(self.events.values())[::-1]
        if types := params.get("types"):
            found = [each for each in found if each["type"] in types]
        if wanted := params.get("delivery_success"):
            found = [each for each in found if (each["pending_webhooks"] == 0) == (wanted == "true")]
        return page("/v1/events", found, params)

    def delivered(self, event_id: str) -> None:
        """Note that a webhook has taken an event."""
        if event_id in self.events:
            self.events[event_id]["pending_webhooks"] = 0
            self.save()


def shown(made: Object) -> Object:
    """A copy of an object as the API shows it."""
    copied: Object = json.loads(json.dumps({name: value for name, value in made.items() if name[0] != "_"}))
    return copied


def found(objects: dict[str, Object], what: str, object_id: str) -> Object:
    """The object of this id, or Stripe's error."""
    if object_id not in objects:
        raise missing(what, object_id)
    return objects[object_id]
