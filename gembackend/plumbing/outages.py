"""Outages as those who watch want to hear of them: when they begin, when their reason changes, when they end."""

from collections.abc import Mapping


class Outages:
    """What is the matter with the parts of something, so that a state that lasts is said once.

    Whoever tries says how it went each time, and speaks when it is told that this is news. A part needs a name where
    there are several.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @property
    def reasons(self) -> Mapping[str, str]:
        """What is the matter, by part, the longest first; empty when all is well."""
        return self._reasons

    @property
    def reason(self) -> str | None:
        """What has been the matter for longest; None when all is well."""
        return next(iter(self._reasons.values()), None)

    def failed(self, why: str, part: str = "") -> bool:
        """It did not work; tells whether that is news: it did before, or failed for another reason."""
        news = self._reasons.get(part) != why
        self._reasons[part] = why
        return news

    def works(self, part: str = "") -> bool:
        """It worked; tells whether that is news."""
        return self._reasons.pop(part, None) is not None
