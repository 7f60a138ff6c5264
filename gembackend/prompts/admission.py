"""Whether the service takes more prompts: a count that costs nothing to ask."""


class Admission:
    """Keeps the number of unfinished prompts below a limit, over all processes.

    The sweeper counts them about once a second; between two counts this process adds what it accepts and takes off
    what it finishes. Other processes' prompts are seen at the next count, so the limit may be passed by what they
    accept in a second.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._unfinished = 0

    def free(self) -> int:
        """How many more prompts may be accepted."""
        return max(0, self._limit - self._unfinished)

    def counted(self, unfinished: int) -> None:
        """The database was asked."""
        self._unfinished = unfinished

    def accepted(self) -> None:
        """This process accepted a prompt."""
        self._unfinished += 1

    def finished(self, count: int) -> None:
        """This process finished prompts."""
        self._unfinished = max(0, self._unfinished - count)
