"""Places: what is remembered, what becomes of the file under way, and what is told of it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import maxminddb
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.surroundings.places
from edge.routing.geo import NOWHERE, Coordinates, Place
from edge.surroundings.places import AGE_S, CHECK_S, DAY_S, KIND, ROOM, Places, centroids
from tests.unit.databases import BUILT, record, write_database
from tools.atlas import sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BERLIN = Place("DE", "EU", "", Coordinates(52.52, 13.41))
WORLD = {
    "192.0.2.0/24": record("DE", "EU", (52.52, 13.41)),
    "198.51.100.0/25": record("US", "NA"),
    "198.51.100.128/25": record("CA", "NA"),
    "10.0.0.0/8": record("FR", "EU"),
    "2001:db8:1::/48": record("SG", "AS", (1.35, 103.82)),
    "2001:db8:2:3::/64": record("JP", "AS"),
}


class Watch:
    """A clock that is set, and the lines that were told."""

    def __init__(self) -> None:
        self.reading = BUILT
        self.lines: list[str] = []

    def now(self) -> float:
        return self.reading

    def tell(self, kind: str, line: str) -> None:
        assert kind == KIND
        self.lines.append(line)


@contextmanager
def opened(path: Path, watch: Watch | None = None) -> Iterator[Places]:
    watch = watch or Watch()
    places = Places(path, now=watch.now, tell=watch.tell)
    try:
        yield places
    finally:
        places.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_database(tmp_path / "city.mmdb", WORLD)


def rewrite(path: Path, data: bytes) -> None:
    """Write over a file as `cp` does: the same inode, at another time."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))


def rename_over(path: Path, records: dict[str, Any], **about: Any) -> None:
    new = write_database(path.with_suffix(".new"), records, **about)
    new.replace(path)


# -- finding


@pytest.mark.parametrize(
    ("address", "country"),
    [
        (b"192.0.2.0", "DE"),
        (b"192.0.2.255", "DE"),
        (b"192.0.3.0", ""),
        (b"198.51.100.127", "US"),
        (b"198.51.100.128", "CA"),
        (b"10.255.0.1", "FR"),
        (b"::ffff:192.0.2.7", "DE"),
        (b"2001:db8:1::1", "SG"),
        (b"2001:0DB8:0001:0::1", "SG"),
        (b"2001:db8:2:3::1", "JP"),
        (b"2001:db8:2:4::1", ""),
    ],
)
def test_an_address_has_the_place_of_its_network(path: Path, address: bytes, country: str) -> None:
    with opened(path) as places:
        assert places.find(address).country == country
        assert places.find(address).country == country  # remembered, and the same


def test_a_record_with_coordinates_keeps_them_and_one_without_has_its_countrys(path: Path) -> None:
    with opened(path) as places:
        assert places.find(b"192.0.2.1") == BERLIN
        assert places.find(b"10.1.2.3") == Place("FR", "EU", "", centroids()["FR"])


@pytest.mark.parametrize(
    "junk",
    [b"", b"unix", b"192.0.2", b"192.0.2.1:80", b"[::1]", b"fe80::1%eth0", b"192.0.2.1\0",
     b"\xff\xfe", b"x" * 10_000, b":", b"1.2.3.4.5", b"192.0.2.1 ", b" 192.0.2.1", b"::1::"],
)  # fmt: skip
def test_what_is_no_address_is_nowhere(path: Path, junk: bytes) -> None:
    with opened(path) as places:
        assert places.find(junk) is NOWHERE
        assert places.find(b"192.0.2.1") == BERLIN


@given(st.binary(max_size=50) | st.text("0123456789abcdef:.%", max_size=45).map(str.encode))
def test_no_address_raises(shared: Places, address: bytes) -> None:
    assert isinstance(shared.find(address), Place)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    path = write_database(tmp_path_factory.mktemp("geo") / "city.mmdb", WORLD)
    with opened(path) as places:
        yield places


def test_a_database_of_ipv4_alone_has_no_place_for_ipv6(tmp_path: Path) -> None:
    path = write_database(tmp_path / "four.mmdb", {"192.0.2.0/24": record("DE")}, ip_version=4)
    watch = Watch()
    with opened(path, watch) as places:
        assert places.find(b"2001:db8::1") == NOWHERE
        assert places.find(b"192.0.2.1").country == "DE"
        assert not watch.lines


def test_records_of_any_form_are_places_or_nowhere(tmp_path: Path) -> None:
    odd = {"10.0.0.0/24": "DE", "10.0.1.0/24": [1, 2], "10.0.2.0/24": {"country": "DE"}}
    with opened(write_database(tmp_path / "odd.mmdb", odd)) as places:
        assert [places.find(b"10.0.%d.1" % n) for n in range(3)] == [NOWHERE] * 3


def test_the_sample_lies_on_six_continents(tmp_path: Path) -> None:
    sample.make(tmp_path / "sample.mmdb")
    with opened(tmp_path / "sample.mmdb") as places:
        told = [places.find(b"10.%d.0.1" % n).continent for n in range(1, 7)]
        assert told == ["EU", "NA", "AS", "SA", "AF", "OC"]
        assert places.find(b"203.0.113.200").subdivision == "JP-13"


# -- remembering


def test_a_client_that_comes_again_is_not_looked_up_again(path: Path) -> None:
    with opened(path) as places:
        for _ in range(10):
            places.find(b"198.51.100.1")
        assert (places.statistics().lookups, places.statistics().cached) == (10, 9)


def test_a_network_that_covers_the_block_is_read_once_for_all_in_it(path: Path) -> None:
    with opened(path) as places:
        for n in range(256):
            assert places.find(b"192.0.2.%d" % n) == BERLIN
            assert places.find(b"2001:db8:1:%x::1" % n).country == "SG"
        assert places.statistics().cached == 512 - 2


def test_addresses_around_which_there_is_nothing_share_that_too(path: Path) -> None:
    with opened(path) as places:
        assert places.find(b"203.0.113.1") is places.find(b"203.0.113.2")
        assert places.statistics().cached == 1


def test_networks_smaller_than_a_block_are_told_apart(path: Path) -> None:
    with opened(path) as places:
        for n in (1, 129, 2, 130):
            assert places.find(b"198.51.100.%d" % n).country == ("US" if n < 128 else "CA")
        assert places.find(b"2001:db8:2:3::1").country == "JP"
        assert places.find(b"2001:db8:2:ffff::1") == NOWHERE
        assert places.statistics().cached == 0


def test_memory_is_bounded_and_what_is_asked_for_stays(path: Path) -> None:
    with opened(path) as places:
        places.find(b"198.51.100.1")
        reads = 1
        for n in range(3 * ROOM):
            places.find(b"10.%d.%d.1" % (n // 256, n % 256))
            reads += 1
            if not n % 1_000:
                places.find(b"198.51.100.1")
        assert places.statistics().lookups - places.statistics().cached == reads
        places.find(b"10.0.0.1")  # the first of all, long forgotten
        assert places.statistics().lookups - places.statistics().cached == reads + 1


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.integers(0, 255).map("203.0.{}.0/24".format)
        | st.tuples(st.integers(0, 255), st.integers(0, 7)).map(
            lambda p: "10.{}.0.{}/32".format(*p)
        )
        | st.integers(0, 0xFFFF).map("2001:db8:{:x}::/48".format)
        | st.integers(0, 0xFFFF).map("2001:db9::{:x}:0/112".format),
        st.sampled_from(["DE", "US", "JP", "BR"]).map(record),
        min_size=1,
        max_size=12,
    ),
    st.data(),
)
def test_what_is_remembered_is_what_the_database_says(
    tmp_path_factory: pytest.TempPathFactory, records: dict[str, Any], data: st.DataObject
) -> None:
    path = write_database(tmp_path_factory.mktemp("law") / "law.mmdb", records)
    near = [network.partition("/")[0] for network in records]
    addresses = st.sampled_from(near) | st.integers(0, 255).map("10.3.0.{}".format)
    asked = data.draw(st.lists(addresses, max_size=20))
    with opened(path) as places, maxminddb.open_database(path) as plain:
        for address in asked:
            truth: Any = plain.get(address)
            expected = truth["country"]["iso_code"] if truth else ""
            assert places.find(address.encode()).country == expected


# -- opening


def refusal(path: Path) -> str:
    with pytest.raises((OSError, ValueError)) as told:
        Places(path, now=lambda: 0.0, tell=lambda kind, line: None)
    assert str(path) in str(told.value)
    return str(told.value)


def test_a_file_that_is_not_there_is_named_with_the_way_out(tmp_path: Path) -> None:
    words = refusal(tmp_path / "none.mmdb")
    assert "is not there" in words
    assert "geo_data/README.md" in words


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "is empty"), (b"x" * 5_000, "no MaxMind-format"), (b"\x00", "no MaxMind-format")],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "bad.mmdb").write_bytes(data)
    assert words in refusal(tmp_path / "bad.mmdb")


def test_half_a_database_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    assert "no MaxMind-format" in refusal(path)


def test_a_directory_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    assert "is no file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in refusal(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(path: Path) -> None:
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_a_database_of_another_kind_is_refused_by_its_type(tmp_path: Path) -> None:
    write_database(tmp_path / "asn.mmdb", WORLD, kind="GeoLite2-ASN")
    words = refusal(tmp_path / "asn.mmdb")
    assert "'GeoLite2-ASN', which tells no places; a City or Country database" in words


@pytest.mark.parametrize("kind", ["GeoLite2-City", "GeoIP2-Country", "GeoIP2-Enterprise"])
def test_all_kinds_that_tell_places_are_taken(tmp_path: Path, kind: str) -> None:
    with opened(write_database(tmp_path / "k.mmdb", WORLD, kind=kind)) as places:
        assert places.statistics().type == kind


def test_a_database_without_a_network_is_refused(tmp_path: Path) -> None:
    write_database(tmp_path / "void.mmdb", {})
    assert "no network in it" in refusal(tmp_path / "void.mmdb")


def test_without_the_c_extension_it_refuses_and_says_how_to_get_it(path: Path) -> None:
    code = (
        "import sys, pathlib; sys.modules['maxminddb.extension'] = None\n"
        "from edge.surroundings.places import Places\n"
        "Places(pathlib.Path(sys.argv[1]), now=lambda: 0.0, tell=print)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "without its C extension; install a wheel that has it: pip install" in done.stderr


def test_it_brings_neither_asyncio_nor_an_http_client_along() -> None:
    code = (
        "import sys, edge.surroundings.places; print(*{m.partition('.')[0] for m in sys.modules})"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "geoip2" in loaded
    assert not {"asyncio", "aiohttp", "requests", "yarl"} & set(loaded)


# -- age


def test_an_old_database_is_told_of_at_once_and_then_daily(path: Path) -> None:
    watch = Watch()
    watch.reading = BUILT + AGE_S + 5 * DAY_S
    with opened(path, watch) as places:
        assert len(watch.lines) == 1
        assert f"{path} was built 35 days ago" in watch.lines[0]
        assert "geoipupdate" in watch.lines[0]
        watch.reading += DAY_S - 1
        places.check()
        assert len(watch.lines) == 1
        watch.reading += 1
        places.check()
        places.check()
        assert len(watch.lines) == 2


def test_a_young_database_is_told_of_on_the_day_it_grows_old(path: Path) -> None:
    watch = Watch()
    watch.reading = BUILT + AGE_S
    with opened(path, watch) as places:
        assert not watch.lines
        watch.reading += 1
        places.check()
        assert len(watch.lines) == 1


def test_an_old_database_in_the_place_of_an_old_one_is_told_of_at_once(path: Path) -> None:
    watch = Watch()
    watch.reading = BUILT + AGE_S + 9 * DAY_S
    with opened(path, watch) as places:
        rename_over(path, WORLD, built=BUILT + DAY_S)
        places.check()
        told = [line for line in watch.lines if "days ago" in line]
        assert ["39 days" in told[0], "38 days" in told[1]] == [True, True]


def test_the_age_is_in_the_statistics_and_never_negative(path: Path) -> None:
    watch = Watch()
    watch.reading = BUILT + 500.0
    with opened(path, watch) as places:
        told = places.statistics()
        assert (told.path, told.type) == (str(path), "Test-City")
        assert (told.built_unix, told.age_s) == (BUILT, 500.0)
        watch.reading = BUILT - 1.0
        assert places.statistics().age_s == 0.0


# -- replacing


def test_a_file_renamed_into_place_is_taken_at_the_next_look(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        assert places.find(b"192.0.2.1").country == "DE"
        rename_over(path, {"192.0.2.0/24": record("AT")}, kind="New-City", built=BUILT + DAY_S)
        assert places.find(b"192.0.2.1").country == "DE"
        assert places.find(b"198.51.100.1").country == "US"  # the old file is still there to read
        places.check()
        assert places.find(b"192.0.2.1").country == "AT"
        assert places.find(b"198.51.100.1") == NOWHERE
        assert places.statistics().type == "New-City"
        assert watch.lines == [f"{path} was replaced: New-City of 2023-11-15"]


def test_a_file_that_is_replaced_while_it_is_opened_is_left_to_the_next_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        described = edge.surroundings.places._described

        def replaced_meanwhile(path: Path) -> Any:
            told = described(path)
            rename_over(path, {"192.0.2.0/24": record("CH")})
            return told

        rename_over(path, {"192.0.2.0/24": record("AT")})
        with monkeypatch.context() as patched:
            patched.setattr(edge.surroundings.places, "_described", replaced_meanwhile)
            places.check()
        assert "was replaced while it was being opened" in watch.lines[0]
        assert places.find(b"192.0.2.1").country == "DE"
        places.check()
        assert places.find(b"192.0.2.1").country == "CH"


def test_a_database_from_the_far_future_is_taken(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        rename_over(path, {"192.0.2.0/24": record("AT")}, built=2.0**63)
        places.check()
        assert watch.lines == [f"{path} was replaced: Test-City of 9999-12-31"]
        assert places.statistics().age_s == 0.0


def test_a_link_that_points_elsewhere_is_a_replacement(tmp_path: Path) -> None:
    for name, country in (("a", "DE"), ("b", "AT")):
        write_database(tmp_path / name, {"192.0.2.0/24": record(country)})
    link = tmp_path / "city.mmdb"
    link.symlink_to(tmp_path / "a")
    with opened(link) as places:
        assert places.find(b"192.0.2.1").country == "DE"
        (tmp_path / "new").symlink_to(tmp_path / "b")
        (tmp_path / "new").replace(link)
        places.check()
        assert places.find(b"192.0.2.1").country == "AT"


def test_a_file_written_in_place_is_taken_when_it_has_come_to_rest(path: Path) -> None:
    new = write_database(path.with_suffix(".b"), {"192.0.2.0/24": record("AT")}).read_bytes()
    watch = Watch()
    with opened(path, watch) as places:
        assert places.find(b"192.0.2.1").country == "DE"
        rewrite(path, new[:100])
        places.check()
        rewrite(path, new)
        places.check()
        assert places.find(b"192.0.2.1").country == "DE"  # remembered
        assert not watch.lines
        places.check()
        assert places.find(b"192.0.2.1").country == "AT"
        assert watch.lines == [f"{path} was replaced: Test-City of 2023-11-14"]


def test_nothing_is_read_of_a_file_that_was_cut_under_the_map(path: Path) -> None:
    with opened(path) as places:
        assert places.find(b"192.0.2.1").country == "DE"
        whole = path.read_bytes()
        before = path.stat()
        os.truncate(path, 0)  # to read the map now would end the process by SIGBUS
        assert places.find(b"192.0.2.1").country == "DE"
        assert places.find(b"192.0.2.77").country == "DE"  # its block is remembered
        assert places.find(b"198.51.100.1") == NOWHERE
        path.write_bytes(whole)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert places.find(b"198.51.100.1").country == "US"  # what was unknown is not remembered


def test_a_broken_file_is_told_once_and_the_old_one_kept(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        (path.parent / "broken").write_bytes(b"no database")
        (path.parent / "broken").replace(path)
        for _ in range(5):
            places.check()
        assert len(watch.lines) == 1
        assert f"{path} is no MaxMind-format database" in watch.lines[0]
        assert watch.lines[0].endswith("the old one stays in use")
        assert places.find(b"198.51.100.1").country == "US"


def test_a_second_broken_file_is_told_of_too_and_a_good_one_is_taken(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        for data in (b"broken", b"broken as well"):
            (path.parent / "broken").write_bytes(data)
            (path.parent / "broken").replace(path)
            places.check()
            places.check()
        assert len(watch.lines) == 2
        rename_over(path, {"192.0.2.0/24": record("AT")})
        places.check()
        assert places.find(b"192.0.2.1").country == "AT"


def test_a_database_of_another_kind_does_not_replace_a_good_one(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        rename_over(path, WORLD, kind="GeoLite2-ASN")
        places.check()
        assert "which tells no places" in watch.lines[0]
        assert places.find(b"198.51.100.1").country == "US"


def test_a_broken_file_written_over_the_old_one_leaves_what_is_remembered(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        assert places.find(b"192.0.2.1").country == "DE"
        rewrite(path, b"broken")
        for _ in range(4):
            places.check()
        assert len(watch.lines) == 1
        assert watch.lines[0].endswith("so only what is remembered has a place")
        assert places.find(b"192.0.2.1").country == "DE"
        assert places.find(b"198.51.100.1") == NOWHERE
        rename_over(path, WORLD)
        places.check()
        assert places.find(b"198.51.100.1").country == "US"


def test_a_file_that_is_gone_is_told_once_and_once_more_when_it_goes_again(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        for _ in range(2):
            path.rename(path.with_suffix(".away"))
            places.check()
            places.check()
            assert places.find(b"198.51.100.1").country == "US"
            path.with_suffix(".away").rename(path)
            places.check()
        assert len(watch.lines) == 2
        assert all("No such file" in line for line in watch.lines)


def test_looking_at_the_same_file_changes_nothing(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        places.find(b"192.0.2.1")
        places.check()
        places.find(b"192.0.2.1")
        assert places.statistics().cached == 1
        assert not watch.lines


def test_a_replaced_file_is_let_go_of(path: Path) -> None:
    with opened(path) as places:
        before = len(os.listdir("/proc/self/fd"))
        for n in range(5):
            rename_over(path, WORLD, built=BUILT + n)
            places.check()
        (path.parent / "broken").write_bytes(b"broken")
        (path.parent / "broken").replace(path)
        places.check()
        assert len(os.listdir("/proc/self/fd")) == before


def test_behind_its_end_only_what_is_remembered_has_a_place(path: Path) -> None:
    watch = Watch()
    with opened(path, watch) as places:
        assert places.find(b"192.0.2.1") == BERLIN
    with opened(path):  # may have the old one's descriptor
        assert places.find(b"192.0.2.1") == BERLIN
        assert places.find(b"198.51.100.1") == NOWHERE
    assert not watch.lines


async def test_it_looks_every_few_seconds(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    told = trio.Event()
    places = Places(path, now=lambda: BUILT, tell=lambda kind, line: told.set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(places.run)
        await trio.testing.wait_all_tasks_blocked()
        rename_over(path, {"192.0.2.0/24": record("AT")})
        await trio.sleep(0.9 * CHECK_S)
        assert places.find(b"192.0.2.1").country == "DE"
        await told.wait()
        assert trio.current_time() == pytest.approx(CHECK_S)
        assert places.find(b"192.0.2.1").country == "AT"
        nursery.cancel_scope.cancel()
    places.close()


# -- damage


def test_damage_is_told_once_and_is_nowhere(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"DE")
    data[at : at + 2] = b"\xff\xff"  # not UTF-8
    path.write_bytes(data)
    watch = Watch()
    with opened(path, watch) as places:
        assert places.find(b"192.0.2.1") == NOWHERE
        assert places.find(b"192.0.2.2") == NOWHERE
        assert places.find(b"198.51.100.1").country == "US"
        assert len(watch.lines) == 1
        assert f"{path} is damaged" in watch.lines[0]


# -- the middles of countries


def test_every_country_of_iso_3166_has_its_middle() -> None:
    assert len(centroids()) == 249 + len({"EU", "XK"})
    assert {"DE", "US", "NA", "AX", "EU", "XK"} <= set(centroids())
    assert all(len(code) == 2 and code.isupper() for code in centroids())
