from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import notation as n
from edge.config.notation import Address, SecretSettings, parse_address
from edge.settings import Kind, UnfitError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[0::1]:0", Address("::1", 0)),
        ("LocalHost:80", Address("localhost", 80)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (n.HOST, "*.Shop.Example", "*.shop.example"),
        (n.HOST, "[::0]", "[::]"),
        (n.HOST, "127.0.0.1", "127.0.0.1"),
        (n.HOST_FIELD, "a.example:8080", "a.example:8080"),
        (n.FIELD_NAME, "X-Powered-By", "x-powered-by"),
        (n.NETWORK, "unix", "unix"),
        (n.NETWORK, "::1", "::1/128"),
        (n.PARAMETER, "utm_*", "utm_*"),
        (n.PARAMETER, "*", "*"),
        (n.WORKERS, "auto", 0),
        (n.WORKERS, 1, 1),
        (n.WORKERS, 256, 256),
        (n.SOCKET, "/run/edge.sock", Path("/run/edge.sock")),
    ],
)
def test_a_value_is_read_in_its_canonical_form(kind: Kind, raw: object, value: object) -> None:
    assert kind.read(raw) == value
    assert kind.read(kind.write(kind.read(raw))) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (n.ADDRESS, "127.0.0.1:８0"),
        (n.ADDRESS, "127.0.0.1"),
        (n.HOST, "[::1"),
        (n.HOST, "[zz]"),
        (n.HOST, "a.*.b"),
        (n.HOST, "256.1.1.1"),
        (n.HOST_FIELD, "*.a"),
        (n.HOST_FIELD, "a:b:c"),
        (n.FIELD_NAME, "host"),
        (n.FIELD_NAME, "a:b"),
        (n.FIELD_VALUE, " a"),
        (n.FIELD_VALUE, "é"),
        (n.PARAMETER, "a&b"),
        (n.GLOB, "/a?b"),
        (n.GLOB, "/a b"),
        (n.NETWORK, "everyone"),
        (n.SOCKET, "/" + "x" * 200),
        (n.WORKERS, 0),
        (n.WORKERS, 257),
        (n.WORKERS, True),
        (n.WORKERS, "2"),
        (n.SERVER, "http://a/path"),
    ],
)
def test_what_is_not_of_a_kind_is_unfit(kind: Kind, raw: object) -> None:
    with pytest.raises(UnfitError):
        kind.read(raw)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::1]:80", "[::]:80", True),
        ("0.0.0.0:80", "[::]:80", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "127.0.0.1:81", False),
    ],
)
def test_addresses_overlap_where_they_cannot_both_be_listened_on(
    one: str, other: str, both: bool
) -> None:
    first, second = parse_address(one), parse_address(other)
    assert first.overlaps(second) == second.overlaps(first) == both


def test_a_secret_is_named_by_one_place() -> None:
    assert not list(SecretSettings(env="A").check())
    assert not list(SecretSettings(file=Path("/a")).check())
    for told in (SecretSettings(), SecretSettings(env="A", file=Path("/a"))):
        (complaint,) = told.check()
        assert "write { env" in complaint.message


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A B", "A" * 257])
def test_what_is_no_variables_name_is_unfit(name: str) -> None:
    assert n.VARIABLE.read("EDGE_SECRET_2") == "EDGE_SECRET_2"
    with pytest.raises(UnfitError):
        n.VARIABLE.read(name)
