"""The bookkeeping of failures to connect."""

from __future__ import annotations

from edge.errors import ExchangeError, Failure
from edge.upstream.backoff import INTERVAL_S, TOLERATED, Backoff

REFUSED = ExchangeError(Failure.CONNECT_REFUSED, retry=True)


def test_a_few_failures_change_nothing() -> None:
    backoff = Backoff()
    for _ in range(TOLERATED):
        backoff.failed(REFUSED, 100.0)
        assert not backoff.troubled
    backoff.failed(REFUSED, 100.0)
    assert backoff.troubled


def test_the_next_attempt_is_due_an_interval_after_the_last_failure() -> None:
    backoff = Backoff()
    backoff.failed(REFUSED, 100.0)
    backoff.failed(REFUSED, 107.0)
    assert backoff.due == 107.0 + INTERVAL_S
    assert backoff.last is REFUSED


def test_one_success_ends_the_trouble() -> None:
    backoff = Backoff()
    for clock in range(10):
        backoff.failed(REFUSED, float(clock))
    backoff.succeeded()
    assert not backoff.troubled
    assert backoff.last is None
