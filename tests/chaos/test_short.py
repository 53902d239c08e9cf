"""The short form of ``make chaos``."""

from chaos import kills, soak


def test_runs_killed_at_random_moments_end_as_if_they_never_had_been(tmp_path):
    record = kills.run(tmp_path, kills=2, seed=1)
    assert record["kills"] == record["kills_resumed_to_identical_weights"] == 2
    assert record["runs"] == record["runs_identical"]
    assert record["passed"]


def test_memory_stays_where_it_is():
    record = soak.run(120)
    assert record["steps"] >= 120
    assert record["growth"] < 5 * soak.BAR  # of so few steps, which hold caches yet to be filled
