"""Deleting in parts: each prompt is in one of them, and none is too large."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gembackend.users.removal_store import PROMPTS_IN_A_STATEMENT, Room, parts

SIZES = st.lists(st.one_of(st.integers(0, 30), st.integers(0, 30_000)), max_size=40)


@given(SIZES)
def test_every_prompt_is_in_one_part_and_no_part_has_more_than_a_statement_takes(sizes: list[int]) -> None:
    rooms = {UUID(int=number): size for number, size in enumerate(sizes)}
    taken = dict.fromkeys(rooms, 0)
    for part in parts([Room(*room) for room in rooms.items()]):
        within = 0
        for room in part.chatroom_ids:
            prompts = max(0, min(rooms[room] + 1, part.end) - max(1, part.first))
            taken[room] += prompts
            within += prompts
        assert within <= PROMPTS_IN_A_STATEMENT
    assert taken == rooms
