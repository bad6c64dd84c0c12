"""Reading an origin's URL, and the policy's declarations."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.upstream.origin import Origin, parse_origin


@pytest.mark.parametrize(
    ("url", "place", "authority"),
    [
        ("http://127.0.0.1:3000", ("http", "127.0.0.1", 3000), b"127.0.0.1:3000"),
        ("https://EU-1.Origin.example", ("https", "eu-1.origin.example", 443), None),
        ("http://origin.example:80/", ("http", "origin.example", 80), b"origin.example"),
        ("https://origin.example:80", ("https", "origin.example", 80), b"origin.example:80"),
        ("http://[2001:DB8::0:1]:81", ("http", "2001:db8::1", 81), b"[2001:db8::1]:81"),
    ],
)
def test_an_origin_is_read_from_its_url(
    url: str, place: tuple[str, str, int], authority: bytes | None
) -> None:
    origin = parse_origin(url)
    assert (origin.scheme, origin.host, origin.port) == place
    assert origin.authority == (authority or place[1].encode())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "origin.example",
        "ftp://origin.example",
        "http://",
        "http://origin.example/path",
        "http://user@origin.example",
        "http://origin.example:0",
        "http://origin.example:65536",
        "http://origin.example:\uff11",
        "http://[::1",
        "http://[::1::2]",
        "http://origin.example\n",
        "http://origin example",
        "http://bücher.example",
    ],
)
def test_what_is_not_an_origin_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_origin(url)


@given(st.text(max_size=40))
def test_any_text_is_an_origin_or_a_value_error(text: str) -> None:
    for url in (text, "http://" + text):
        try:
            parse_origin(url)
        except ValueError:
            continue


def test_every_setting_says_what_it_is() -> None:
    for field in fields(Origin):
        assert field.metadata["says"]
        assert "unit" in field.metadata
        assert field.metadata["unit"] == "seconds" or not field.name.endswith("_s")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("http://EU-1.example/", "http://eu-1.example:80"),
        ("https://eu-1.example:8443", "https://eu-1.example:8443"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]:443"),
    ],
)
def test_a_server_is_named_to_people_in_one_way(given: str, told: str) -> None:
    assert parse_origin(given).url == told
    assert parse_origin(told).url == told
