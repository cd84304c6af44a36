import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.mixture import Mixture


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=6).filter(lambda shares: sum(shares) > 0.1),
    st.integers(1, 64),
    st.integers(1, 40),
)
def test_totals_never_stray_from_the_asked_shares(shares: list[float], windows: int, batches: int) -> None:
    mixture = Mixture({("task", str(index)): share for index, share in enumerate(shares)})
    totals = dict.fromkeys(mixture.shares, 0)
    for number in range(1, batches + 1):
        counts = mixture.split(windows)
        assert sum(counts.values()) == windows and min(counts.values()) >= 0
        for key, count in counts.items():
            totals[key] += count
            assert abs(totals[key] - mixture.shares[key] * windows * number) < len(shares)


def test_whole_shares_are_exact_in_every_batch() -> None:
    mixture = Mixture({("a", "demonstrations"): 3, ("a", "good"): 1, ("b", "demonstrations"): 4})
    for _ in range(10):
        assert list(mixture.split(16).values()) == [6, 2, 8]


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to more than 0"):
        Mixture({("a", "good"): 0.0})
