"""What a Dockerfile and a .dockerignore say."""

import re
from collections.abc import Iterator


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The steps of a Dockerfile: the instruction and the rest, without comments and continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        if line.strip():
            instruction, _, rest = line.strip().partition(" ")
            yield instruction.upper(), rest.strip()


class Ignored:
    """A .dockerignore: the last pattern that fits a path, or a directory above it, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self._rules = [(not line.startswith("!"), _pattern(line.removeprefix("!"))) for line in lines]

    def sends(self, path: str) -> bool:
        """Whether the builder gets this path."""
        kept_out = [ignored for ignored, pattern in self._rules if pattern.match(path)]
        return not (kept_out and kept_out[-1])


def _pattern(glob: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|[*?]|\[[^]]+\]|.", glob)
    body = (parts.get(token) or (token if len(token) > 1 else re.escape(token)) for token in tokens)
    return re.compile(f"{''.join(body)}(?:/.*)?$")
