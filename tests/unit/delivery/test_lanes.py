"""Lanes: turns, limits an endpoint, who is turned away and for how long."""

from __future__ import annotations

import threading

import pytest

from unmask.delivery.lanes import Lanes


def taken(lanes: Lanes[int], count: int) -> list[tuple[str, int]]:
    return [found for _ in range(count) if (found := lanes.take()) is not None]


def test_lanes_take_turns_and_keep_their_own_order() -> None:
    lanes: Lanes[int] = Lanes(each=9)
    for number in range(3):
        assert lanes.put("a", number) is None
    lanes.put("b", 10)
    assert taken(lanes, 4) == [("a", 0), ("b", 10), ("a", 1), ("a", 2)]
    assert lanes.count == 4, "in hand counts"


def test_no_more_of_a_lane_than_its_limit_are_in_hand() -> None:
    lanes: Lanes[int] = Lanes(each=2)
    for number in range(4):
        lanes.put("a", number)
    lanes.put("b", 10)
    assert sorted(taken(lanes, 3)) == [("a", 0), ("a", 1), ("b", 10)]
    found: list[tuple[str, int] | None] = []
    waiting = threading.Thread(target=lambda: found.append(lanes.take()))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive(), "a third of the lane waits"
    lanes.done("a", 0.0)
    waiting.join(5)
    assert found == [("a", 2)]


def test_a_full_lane_turns_away_at_the_pace_at_which_it_moves() -> None:
    lanes: Lanes[int] = Lanes(each=2, room=4)
    lanes.put("a", 0)
    lanes.take()
    for number in range(1, 5):
        assert lanes.put("a", number) is None
    lanes.done("a", 0.1)  # 0.1 s each, two at once: one in 0.05 s; four are ahead
    waits = [lanes.put("a", 5), lanes.put("a", 6), lanes.put("a", 7)]
    assert waits == pytest.approx([0.25, 0.3, 0.35], abs=0.02)
    assert lanes.put("b", 1) is None, "the others have room"


def test_a_slow_lane_takes_in_no_more_than_it_gives_out_in_time() -> None:
    lanes: Lanes[int] = Lanes(each=1, patience=30.0)
    for number in range(9):
        lanes.put("a", number)
    for _ in range(8):
        lanes.take()
        lanes.done("a", 15.0)  # one waits still
    told = [lanes.put("a", number) for number in range(9)]
    assert told[0] is None and told[-1] is not None and told[-1] > 30.0


def test_closing_gives_back_what_waits_and_wakes_who_waits() -> None:
    lanes: Lanes[int] = Lanes(each=1)
    found: list[tuple[str, int] | None] = []
    waiting = threading.Thread(target=lambda: found.append(lanes.take()))
    waiting.start()
    lanes.put("a", 0)
    waiting.join(5)
    lanes.put("a", 1)
    assert lanes.close() == [1] and lanes.take() is None
    assert lanes.put("a", 2) == 0.0 and not lanes.wait(0, 0.01)
    lanes.done("a", 0.1)
    assert lanes.wait(0, 5) and found == [("a", 0)]
