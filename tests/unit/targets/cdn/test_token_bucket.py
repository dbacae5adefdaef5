from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invalidator.targets.cdn._capabilities import Rate
from invalidator.targets.cdn._token_bucket import TokenBucket


def test_a_burst_goes_out_at_once_and_the_next_one_waits_for_its_token() -> None:
    bucket = TokenBucket(Rate(per_second=0.5, burst=3), now=100.0)
    assert [bucket.take(1, 100.0) for _ in range(5)] == [0, 0, 0, 2, 4]


def test_tokens_come_back_with_time_up_to_the_burst() -> None:
    bucket = TokenBucket(Rate(per_second=2, burst=3), now=0.0)
    assert bucket.take(3, 0.0) == 0
    assert bucket.take(1, 0.5) == 0
    assert bucket.take(1, 0.5) == 0.5
    assert [bucket.take(1, 1000.0) for _ in range(4)] == [0, 0, 0, 0.5]


def test_a_call_that_needs_more_than_a_full_bucket_waits_its_turn() -> None:
    bucket = TokenBucket(Rate(per_second=10, burst=5), now=0.0)
    assert bucket.take(25, 0.0) == 2.0
    assert bucket.take(1, 2.0) == 0.1


@given(
    per_second=st.floats(0.01, 1000),
    burst=st.integers(1, 1000),
    calls=st.lists(st.tuples(st.integers(1, 300), st.floats(0, 100)), max_size=60),
)
def test_no_window_ever_sees_more_than_the_burst_and_its_share(
    per_second: float, burst: int, calls: list[tuple[int, float]]
) -> None:
    bucket, now, sent = TokenBucket(Rate(per_second, burst), now=0.0), 0.0, []
    for tokens, pause in calls:
        now += pause
        sent.append((now + bucket.take(tokens, now), tokens))
    moments = [moment for moment, _ in sent]
    assert moments == sorted(moments)
    for first in range(len(sent)):
        # The call that opens a window may have been saved up for; what follows it was not.
        total = sum(tokens for _, tokens in sent[first + 1 :])
        if first + 1 < len(sent):
            assert total <= burst + (sent[-1][0] - sent[first][0]) * per_second + 1e-6 * (1 + total)
