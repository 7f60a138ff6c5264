"""What a search asks for: words, phrases, `or` and `-`, read as search engines read them."""

import re
from dataclasses import dataclass

from gembackend.messages.search_text import beginning, whole, words_of

_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»″＂", '"'))
_PART = re.compile(r'(-?)"([^"]*)"|(\S+)')


@dataclass(frozen=True, slots=True)
class Wanted:
    """Pieces that must all be in the words of a message, and pieces none of which may."""

    required: tuple[str, ...]
    excluded: tuple[str, ...]


Query = tuple[Wanted, ...]
"""Alternatives, one of which a message must be; without any nothing is looked for."""


def parse(text: str) -> Query:
    """Read what somebody typed; there is no text that is an error.

    A word is found by its beginning, `"a phrase"` as it stands; `-` excludes a whole word or phrase; `or` separates
    alternatives. Signs that mean nothing here, such as a quotation mark that is not closed or a second hyphen, are
    passed over.
    """
    alternatives: list[Wanted] = []
    required: list[str] = []
    excluded: list[str] = []

    def close() -> None:
        if required or excluded:
            alternatives.append(Wanted(tuple(dict.fromkeys(required)), tuple(dict.fromkeys(excluded))))
        required.clear()
        excluded.clear()

    for minus, phrase, word in _PART.findall(text.translate(_QUOTES)):
        if word.lower() == "or":
            close()
            continue
        negated = minus == "-" or (word.startswith("-") and not word.startswith("--"))
        words = words_of(phrase or word)
        if words and negated:
            excluded.append(whole(words))
        elif words:
            # "sky," and "c++" are words that have ended; "sky" may be the beginning of one.
            required.append(beginning(words) if word and words_of(word[-1]) else whole(words))
    close()
    return tuple(alternatives)
