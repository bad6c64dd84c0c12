"""The table of failures: complete, unambiguous, and true to whose fault each is."""

from __future__ import annotations

import pytest

from edge.errors import ExchangeError, Failure, ProtocolError, Side, let_go


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_has_a_status_that_fits_its_side(failure: Failure) -> None:
    if failure.side is Side.CLIENT and failure is not Failure.NOT_IN_STORE:
        assert 400 <= failure.status < 500 or failure.status in (505, 508)
    else:
        assert 500 <= failure.status < 600


def test_no_two_failures_share_a_name_in_the_log() -> None:
    assert len({failure.slug for failure in Failure}) == len(Failure)


def test_an_error_tells_its_failure_and_its_detail_in_words() -> None:
    error = ExchangeError(Failure.CONNECT_REFUSED, "127.0.0.1:3000", retry=True)
    assert str(error) == "connect-refused: 127.0.0.1:3000"
    assert (error.side, error.status, error.retry) == (Side.UPSTREAM, 502, True)


def test_an_error_is_not_safe_to_repeat_unless_it_says_so() -> None:
    assert not ExchangeError(Failure.CLOSED_EARLY).retry


def test_a_parsers_error_is_an_exchanges_error() -> None:
    assert isinstance(ProtocolError(Failure.BAD_MESSAGE), ExchangeError)


def test_a_parsers_error_anew_says_the_same_and_has_not_been_raised() -> None:
    with pytest.raises(ProtocolError) as raised:
        raise ProtocolError(Failure.BAD_RESPONSE, "why", retry=True)
    anew = raised.value.anew()
    assert (anew.failure, anew.detail, anew.retry) == (Failure.BAD_RESPONSE, "why", True)
    assert (anew.__traceback__, anew.__context__) == (None, None)


def test_an_error_that_goes_no_further_lets_go_of_its_frames_and_its_causes_too() -> None:
    with pytest.raises(ExchangeError) as raised:
        try:
            try:
                raise OSError("first")
            except OSError:
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            raise ExchangeError(Failure.INTERNAL) from error
    third = raised.value
    second = third.__cause__
    assert second is not None
    first = second.__context__
    let_go(third)
    assert first is not None
    assert [each.__traceback__ for each in (third, second, first)] == [None] * 3
