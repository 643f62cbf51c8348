from hypothesis import given
from hypothesis import strategies as st
from simplayer import Player

from voiceagent.core.playout import WAY_S, Playout

RATE = 24_000


def test_the_clock_runs_in_real_time_and_waits_when_dry() -> None:
    playout = Playout()
    playout.send(RATE, 10.0)
    assert playout.clock(9.0) == 0
    assert playout.clock(10.5) == RATE // 2
    assert playout.clock(20.0) == RATE
    playout.send(RATE, 20.0)
    assert playout.clock(20.5) == RATE + RATE // 2
    assert playout.ahead(20.5) == RATE // 2


def test_long_ago_is_answered_with_the_oldest_that_is_known() -> None:
    playout = Playout()
    for n in range(5):
        playout.send(960, float(n))
    assert playout.clock(0.5) == 3 * 960
    assert playout.clock(4.5) == 5 * 960


def test_what_was_heard_lags_by_the_way_to_the_ear() -> None:
    playout = Playout()
    playout.send(RATE, 0.0)
    assert playout.heard(0.5) == playout.clock(0.5 - WAY_S)
    playout.send(RATE, 5.0)  # it had run dry long ago
    assert playout.heard(5.05) == RATE
    assert abs(playout.heard(5.1 + WAY_S) - RATE - 2400) <= 1


def test_acknowledgements_are_believed_as_far_as_time_allows() -> None:
    playout = Playout()
    playout.send(RATE, 0.0)
    playout.acknowledge(RATE)
    assert playout.heard(0.25) == RATE // 4
    playout = Playout()
    playout.send(RATE, 0.0)
    playout.acknowledge(960)
    playout.acknowledge(480)
    assert playout.heard(0.9) == 960
    assert playout.clock(0.9) == int(0.9 * RATE)
    assert playout.time_when_heard(playout.sent) is None
    playout.acknowledge(RATE)
    assert playout.time_when_heard(playout.sent) is not None


def test_deadlines_are_not_too_early() -> None:
    playout = Playout()
    playout.send(RATE, 0.1)
    assert playout.ahead(playout.time_when_ahead(960)) <= 960
    assert playout.ahead(playout.time_when_ahead(0)) == 0
    heard = playout.time_when_heard(playout.sent)
    assert heard is not None
    assert playout.heard(heard) == RATE


@given(
    st.lists(st.tuples(st.floats(0, 1.5), st.integers(1, 40_000), st.booleans()), min_size=1, max_size=20),
    st.floats(0, WAY_S),
)
def test_heard_is_never_ahead_of_a_player(sends: list[tuple[float, int, bool]], delay: float) -> None:
    playout, player, now = Playout(), Player(delay), 0.0
    lost = 0.0  # samples that a flush took from the player, and that count as played
    for turn, (wait, samples, flush) in enumerate(sends):
        now += wait
        player.advance(now)
        assert playout.heard(now) <= sum(player.played.values()) + lost + 2
        if flush:
            for old in range(turn):
                player.flush(old)
            playout.flush(now)
            lost = playout.sent - sum(player.played.values())
        playout.send(samples, now)
        player.receive(turn, samples, now)
