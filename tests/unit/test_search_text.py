"""What is searched of a text, and how a query is read."""

import itertools
import time

import pytest

from gembackend.messages.search_query import Wanted, parse
from gembackend.messages.search_text import LONGEST_TEXT, MOST_BYTES, PIECE, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The sky is BLUE.", " the sky is blue "),
        ("a_a_a ~/~/ 3.14", " a a a 3 14 "),
        ("https://www.example.com/a-path?key=value#top", " https www example com a path key value top "),
        ("foo.bar+tag@example.org", " foo bar tag example org "),
        ("„Überall“—grün。", " überall grün "),
        ("Straße STRASSE", " strasse strasse "),
        ("e\u0301 \u00e9", " \u00e9 \u00e9 "),
        ("ﬁne ｗｉｄｅ ｶﾞ", " fine wide ガ "),
        ("so\u00adft \u200fשלום\u200e", " soft שלום "),
        ("हिन्दी में", " हिन्दी में "),
        ("我的iPhone手机，2024年", " 我的 iphone 手机 2024 年 "),
        ("ภาษาไทย", " ภาษาไทย "),
        ("good 👍🏽 day ❤️", " good 👍🏽 day ❤ "),
        ("?!… \n\t", ""),
        ("", ""),
    ],
)
def test_words_are_written_alike_whatever_their_case_and_form(text: str, words: str) -> None:
    assert words_of(text) == words
    assert words_of(words) == words


def test_what_is_searched_is_bounded_whatever_the_text_is() -> None:
    for first, second in itertools.product("a_好ﷺ\u0301\u0327", repeat=2):
        words = words_of((first + second) * LONGEST_TEXT)
        assert len(words.encode()) <= MOST_BYTES + 2, first + second
        assert words == "" or (words[0], words[-1], "  " in words) == (" ", " ", False)


def test_no_text_takes_much_longer_than_another_of_its_length() -> None:
    """Putting a long run of marks into their order takes Unicode's normalization time by the square."""

    def seconds(text: str) -> float:
        begun = time.process_time()
        words_of(text)
        return time.process_time() - begun

    usual = seconds("好a" * (LONGEST_TEXT // 2))
    for pattern in itertools.product("a_ 好\u0301\u0327\u0345", repeat=2):
        text = "".join(pattern) * (LONGEST_TEXT // 2)
        assert seconds(text) < 20 * usual, pattern


def test_a_text_is_written_alike_wherever_it_is_cut_to_be_normalized() -> None:
    for lead in range(2 * PIECE):
        assert words_of("好" * lead + "e\u0327\u0301 ｶﾞ \u1112\u1161\u11ab").endswith(" \u0229\u0301 ガ 한 ")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("blue sky", [((" blue", " sky"), ())]),
        ('"blue sky"', [((" blue sky ",), ())]),
        ("“Blue sky” «x»", [((" blue sky ", " x "), ())]),
        ('sky -is -"a b"', [((" sky",), (" is ", " a b "))]),
        ("a or b c OR d", [((" a",), ()), ((" b", " c"), ()), ((" d",), ())]),
        ("or a or or", [((" a",), ())]),
        ('"or"', [((" or ",), ())]),
        ("the-dash foo@bar.org", [((" the dash", " foo bar org"), ())]),
        ("c++ sky, sky", [((" c ", " sky ", " sky"), ())]),
        ("猫 -犬 手机iphone", [(("猫", "手机 iphone"), ("犬",))]),
        ('"手机"', [(("手机",), ())]),
        ('blue "sky', [((" blue", " sky"), ())]),
        ("--verbose", [((" verbose",), ())]),
        ("-or", [((), (" or ",))]),
        ("-" * 33, []),
        ("& | ! <-> :* \\ ' %", []),
        ('""', []),
        ('-""', []),
        ("👍", [(("👍",), ())]),
    ],
)
def test_a_query_is_words_phrases_and_what_must_not_be(
    text: str, query: list[tuple[tuple[str, ...], tuple[str, ...]]]
) -> None:
    assert parse(text) == tuple(Wanted(required, excluded) for required, excluded in query)


def test_no_query_is_an_error() -> None:
    for pattern in itertools.product('a-"好 |\u0301', repeat=4):
        for wanted in parse("".join(pattern) * 50):
            assert all(piece.strip() for piece in wanted.required + wanted.excluded)
