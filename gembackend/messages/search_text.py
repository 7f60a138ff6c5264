"""What is searched of a text: its words, written alike whatever their case and form, with a blank around each.

The work is linear in the text, whatever it is, and so is looking for something in what comes of it: words by their
beginning, phrases, and any part of scripts that put no blanks between words are all pieces of one string.
"""

import re
import unicodedata
from collections.abc import Iterator

LONGEST_TEXT = 65_536
"""So many characters of a message are searched."""
MOST_BYTES = 256 * 1024
"""What comes of a text is cut here: some characters become eighteen (Unicode's NFKC), most remain one."""

PIECE = 256

_SPACELESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"  # Korean: blanks, but words grow at their ends and together
    "\u1780-\u17ff"  # Khmer
    "\u2600-\u27bf\U0001f000-\U0001faff"  # pictures
    "\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31ff"  # kana, bopomofo
    "\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters, Yi
)
_PICTURES = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")
_RUN = re.compile(f"[{_SPACELESS}]+")
_ANY_PART = re.compile(f"[{_SPACELESS}]")


class _Letters(dict[int, str | None]):
    """What becomes of each character, decided when it is first met: letters, digits and marks stay, what is not seen
    (soft hyphens, directions, joiners) goes, and anything else becomes a blank."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf" or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
            kept: str | None = None
        elif category[0] in "LNM" or _PICTURES.match(character):
            kept = character
        else:
            kept = " "
        self[code] = kept
        return kept


_LETTERS = _Letters()


def words_of(text: str) -> str:
    """The words of a text (the beginning of a very long one), a blank before and behind each; "" when it has none.

    Runs of scripts without blanks are words of their own, so that in "我的iPhone" "iphone" is a word too.
    """
    text = text[:LONGEST_TEXT]
    text = text.lower() if text.isascii() else _alike(text)
    words = text.translate(_LETTERS)
    if not words.isascii():
        words = _RUN.sub(r" \g<0> ", words)
    joined = " ".join(words.split())
    return f" {_cut(joined)} " if joined else ""


def whole(words: str) -> str:
    """The piece that a text has where it has just these words, one after another."""
    left = words.lstrip() if _ANY_PART.match(words, 1) else words
    return left.rstrip() if _ANY_PART.match(words, len(words) - 2) else left


def beginning(words: str) -> str:
    """The piece that a text has where it has these words one after another, the last of them perhaps longer."""
    return whole(words).rstrip()


def _alike(text: str) -> str:
    """A text in Unicode's NFKC, without regard to case, as far as it will be needed."""
    pieces: list[str] = []
    left = MOST_BYTES
    for piece in _pieces(text):
        pieces.append(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", piece).casefold()))
        left -= len(pieces[-1])
        if left <= 0:
            break
    return "".join(pieces)


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces: normalizing takes time by the square of a run of marks, so what is normalized at once is short.

    What belongs to the character before it is not parted from it, unless there is an endless lot of it.
    """
    start = 0
    while start < len(text):
        end, most = start + PIECE, start + 2 * PIECE
        while end < min(most, len(text)) and _belongs_to_the_one_before(text[end]):
            end += 1
        yield text[start:end]
        start = end


def _belongs_to_the_one_before(character: str) -> bool:
    """Whether a character may become one with that before it: a mark, a Korean vowel or final, a kana's voicing."""
    return unicodedata.category(character)[0] == "M" or "\u1160" <= character <= "\u11ff" or character in "\uff9e\uff9f"


def _cut(words: str) -> str:
    """No more than MOST_BYTES of it."""
    if 4 * len(words) <= MOST_BYTES:
        return words
    return words.encode()[:MOST_BYTES].decode(errors="ignore").rstrip()
