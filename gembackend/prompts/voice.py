"""What an attempt says aloud while Gemini answers."""

from time import monotonic

from gembackend.live.feed import Feed
from gembackend.plumbing import metrics
from gembackend.prompts.outcome import LONGEST_REPLY, clean_text
from gembackend.prompts.store import Claimed


class Voice:
    """Says one attempt's reply piece by piece, as it will be stored, and no further than that."""

    def __init__(self, feed: Feed, claimed: Claimed) -> None:
        self._feed = feed
        self._claimed = claimed
        self._begun = monotonic()
        self._silent = True
        self._left = LONGEST_REPLY

    def __call__(self, piece: str) -> None:
        """Say more."""
        if self._silent:
            self._silent = False
            metrics.GEMINI_FIRST_TOKEN_SECONDS.observe(monotonic() - self._begun)
        said = clean_text(piece)[: self._left]
        self._left -= len(said)
        self._feed.say(self._claimed.chatroom_id, self._claimed.id, self._claimed.fence, said)
