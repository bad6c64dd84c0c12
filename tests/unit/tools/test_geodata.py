"""tools/geodata: what tables may say, what becomes of overlaps, and the tool as people call it."""

from __future__ import annotations

import csv
import ipaddress
import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geoip2.database
import maxminddb
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdb_writer import SearchTreeLeaf

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from edge.routing.geo import Coordinates  # noqa: E402
from tools.atlas import sample  # noqa: E402
from tools.atlas.sources import (  # noqa: E402
    IPV4_END,
    MOST_TOLD,
    Range,
    SourceError,
    Spot,
    Table,
    countries,
    read,
)
from tools.atlas.tree import STEP_RANGES, Piece, build, flatten, grow  # noqa: E402

HEAD = "network,country,subdivision,city,latitude,longitude\n"


def source(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(SourceError) as told:
        read([path])
    return str(told.value).splitlines()


def database(tmp_path: Path, *sources: Path) -> Path:
    out = tmp_path / "made.mmdb"
    build(read(sources), out, built=1.7e9, notice="a test's")
    return out


def looked_up(path: Path, address: str) -> Any:
    with maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT) as reader:
        return reader.get(address)


# -- sources


def test_a_csv_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    path = source(tmp_path, HEAD + '192.0.2.0/24,DE,BE,"Berlin, Mitte",52.52,13.41\n')
    table = read([path])
    (only,) = table.ranges
    assert (only.first, only.last) == (0xC0000200, 0xC00002FF)
    assert list(table.spots) == [Spot("DE", "BE", "Berlin, Mitte", Coordinates(52.52, 13.41))]


def test_first_and_last_do_as_well_and_lines_may_end_early(tmp_path: Path) -> None:
    path = source(tmp_path, "first, last, country, city\n192.0.2.1, 192.0.2.5, DE\n")
    (only,) = read([path]).ranges
    assert only.last - only.first == 4


def test_comments_and_empty_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    path = source(tmp_path, f"# a table\n\n{HEAD}# of\n\n192.0.2.0/33,DE\n")
    assert faults(path)[0].startswith(f"{path}:6: ")


def test_a_subdivision_may_be_written_with_its_country(tmp_path: Path) -> None:
    table = read([source(tmp_path, HEAD + "192.0.2.0/24,DE,DE-BE\n")])
    assert [spot.subdivision for spot in table.spots] == ["BE"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("192.0.2.0/33,DE", "'192.0.2.0/33' does not appear to be an IPv4 or IPv6 network"),
        ("192.0.2.1/24,DE", "192.0.2.1/24 has host bits set"),
        (",DE", "'' does not appear to be an IPv4 or IPv6 address"),
        ("192.0.2.0/24", "country '' is not in geo_data/countries.csv"),
        ("192.0.2.0/24,de", "country 'de' is not in geo_data/countries.csv"),
        ("192.0.2.0/24,QQ", "country 'QQ' is not in"),
        ("192.0.2.0/24,DE,Berlin", "subdivision 'Berlin' is no code of ISO 3166-2"),
        ("192.0.2.0/24,DE,,,52.5", "latitude and longitude are needed, both or neither"),
        ("192.0.2.0/24,DE,,,99,0", "latitude 99.0 is not between -90 and 90 degrees"),
        ("192.0.2.0/24,DE,,,north,0", "could not convert string to float: 'north'"),
        ("192.0.2.0/24,DE,,,1,2,3", "7 cells, but 6 columns"),
        ('192.0.2.0/24,DE,,"x', "unexpected end of data"),
        ("::/0,DE", ":: lies in ::/96, where a database keeps IPv4"),
        ("::1/128,DE", "::1 lies in ::/96"),
    ],
)
def test_a_wrong_line_is_told_with_its_file_and_line(
    tmp_path: Path, line: str, words: str
) -> None:
    path = source(tmp_path, f"{HEAD}198.51.100.0/24,US\n{line}\n203.0.113.0/24,SG\n")
    (told,) = faults(path)
    assert told.startswith(f"{path}:3: ")
    assert words in told


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("192.0.2.9,192.0.2.1,DE", "192.0.2.9 is behind 192.0.2.1"),
        ("192.0.2.1,2001:db8::1,DE", "192.0.2.1 and 2001:db8::1 are of different IP versions"),
    ],
)
def test_a_range_has_its_ends_in_order(tmp_path: Path, row: str, words: str) -> None:
    assert words in faults(source(tmp_path, f"first,last,country\n{row}\n"))[0]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("network,land", "unknown column 'land'; known are network, first, last, country"),
        ("network,country,country", "a column is there twice"),
        ("network,city", "the column country is missing"),
        ("country", "either network is needed, or first and last"),
        ("network,first,last,country", "either network is needed, or first and last"),
        ("first,country", "first and last are needed, both"),
    ],
)
def test_a_wrong_head_is_told_once(tmp_path: Path, head: str, words: str) -> None:
    path = source(tmp_path, f"{head}\n192.0.2.0/24,DE\n192.0.2.0/24,DE\n")
    (told,) = faults(path)
    assert told.startswith(f"{path}:1: ")
    assert words in told


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", HEAD])
def test_a_source_without_a_network_is_told(tmp_path: Path, text: str) -> None:
    assert str(tmp_path) in faults(source(tmp_path, text))[0]


def test_a_source_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"network,country\n\xff\xfe\n")
    assert "is not text in UTF-8" in faults(tmp_path / "x")[0]


def test_all_faults_are_told_up_to_a_bound(tmp_path: Path) -> None:
    told = faults(source(tmp_path, HEAD + "junk,DE\n" * (MOST_TOLD + 5)))
    assert len(told) == MOST_TOLD + 1
    assert told[-1] == "... and 5 more"


TOR4 = """\
# Location Database Export
# Generated: Thu, 25 Jun 2026 04:33:59 GMT
# License:   CC BY-SA 4.0
16777216,16777471,AU
16777472,16778239,??
16778240,16779263,CN
16779264,16779519,AP
"""
TOR6 = """\
# Generated: Wed, 24 Jun 2026 04:33:59 GMT
2001:200::,2001:200:134:ffff:ffff:ffff:ffff:ffff,JP
2001:db8::,2001:db8::ffff,DE
"""


def test_the_lists_of_tor_geoipdb_are_known_by_their_lines(tmp_path: Path) -> None:
    table = read([source(tmp_path, TOR4, "geoip"), source(tmp_path, TOR6, "geoip6")])
    assert [spot.country for spot in table.spots] == ["AU", "CN", "JP", "DE"]
    assert table.ranges[0][:2] == (0x01000000, 0x010000FF)
    assert table.ranges[3][:2] == (0x20010DB8 << 96, (0x20010DB8 << 96) + 0xFFFF)
    assert table.left_out == {"??": 1, "AP": 1}
    assert min(table.generated) == 1_782_275_639.0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("16777216,AU", "'16777216,AU' is not FIRST,LAST,COUNTRY"),
        ("16777216,16777471,Australia", "is not FIRST,LAST,COUNTRY"),
        ("16777471,16777216,AU", "1.0.0.255 is behind 1.0.0.0"),
        ("4294967296,4294967297,AU", "4294967296"),
        ("2001::g,2001::h,AU", "is not FIRST,LAST,COUNTRY"),
        ("2001:::,2001::1,AU", "'2001:::' does not appear"),
    ],
)
def test_a_wrong_line_of_tor_geoipdb_is_told_too(tmp_path: Path, line: str, words: str) -> None:
    path = source(tmp_path, f"{TOR4}{line}\n", "geoip")
    (told,) = faults(path)
    assert told.startswith(f"{path}:8: ")
    assert words in told


def test_progress_is_told_now_and_then(tmp_path: Path) -> None:
    path = source(tmp_path, TOR4 + "#\n" * 120_000, "geoip")
    steps: list[tuple[str, int]] = []
    read([path], lambda name, lines: steps.append((name, lines)))
    assert steps == [(str(path), 50_000), (str(path), 100_000)]


# -- the tree


def ranges(*extents: tuple[int, int]) -> list[Range]:
    return [Range(first, last, n, "t:", n) for n, (first, last) in enumerate(extents)]


def test_of_two_networks_the_inner_one_counts_whatever_their_order(tmp_path: Path) -> None:
    inner, outer = "192.0.2.64/26,AT\n", "192.0.2.0/24,DE\n"
    for n, lines in enumerate((inner + outer, outer + inner)):
        made = database(tmp_path, source(tmp_path, HEAD + lines, f"{n}.csv"))
        told = [looked_up(made, f"192.0.2.{n}")["country"]["iso_code"] for n in (0, 64, 127, 128)]
        assert told == ["DE", "AT", "AT", "DE"]


def test_ranges_that_cross_and_ranges_that_are_the_same_are_refused() -> None:
    with pytest.raises(SourceError, match="t:1: overlaps t:0, and neither is within the other"):
        list(flatten(ranges((0, 10), (5, 15))))
    with pytest.raises(SourceError, match="the same addresses as in t:0"):
        list(flatten(ranges((0, 10), (0, 10))))


@st.composite
def nested(draw: st.DrawFn) -> list[Range]:
    """Networks of a small world of 256 addresses, each once."""
    blocks = st.tuples(st.integers(0, 255), st.integers(0, 8))
    drawn = draw(st.lists(blocks, max_size=12))
    unique = {(at >> bits << bits, (at >> bits << bits) + (1 << bits) - 1) for at, bits in drawn}
    return draw(st.permutations(ranges(*sorted(unique))))


@given(nested())
def test_pieces_are_in_order_and_each_address_has_its_innermost_range(world: list[Range]) -> None:
    pieces = list(flatten(world))
    assert all(a.last < b.first for a, b in pairwise(pieces))
    for address in range(256):
        around = [each for each in world if each.first <= address <= each.last]
        innermost = min(around, key=lambda each: each.last - each.first, default=None)
        told = [piece.spot for piece in pieces if piece.first <= address <= piece.last]
        assert told == ([innermost.spot] if innermost else [])


EXTENTS = st.tuples(st.integers(0, 1 << 32), st.integers(0, 1 << 32)).map(
    lambda pair: (min(pair), max(pair))
)


@settings(max_examples=40)
@given(st.lists(EXTENTS, min_size=1, max_size=8), st.booleans(), st.data())
def test_a_database_says_what_its_ranges_say(
    tmp_path_factory: pytest.TempPathFactory,
    extents: list[tuple[int, int]],
    is_ipv6: bool,
    data: st.DataObject,
) -> None:
    base = 0x20010DB8 << 96 if is_ipv6 else 0
    limit = (1 << 64) if is_ipv6 else IPV4_END - 1
    table = Table()
    edges: list[int] = []
    after = 0
    for first, last in sorted(extents):  # of those that overlap, the first
        if first >= after and last <= limit:
            code = ("DE", "US", "JP")[len(edges) % 3]
            table.add(base + first, base + last, Spot(code), "t:", len(edges))
            edges += [first, last, max(0, first - 1), min(limit, last + 1)]
            after = last + 1
    if not table.ranges:
        return
    out = tmp_path_factory.mktemp("law") / "law.mmdb"
    build(table, out, built=1.7e9, notice="")
    codes = {number: spot.country for spot, number in table.spots.items()}
    asked = edges + data.draw(st.lists(st.integers(0, limit), max_size=5))
    form: Any = ipaddress.IPv6Address if is_ipv6 else ipaddress.IPv4Address
    with maxminddb.open_database(out, maxminddb.MODE_MMAP_EXT) as reader:
        for offset in asked:
            here = [r for r in table.ranges if r.first <= base + offset <= r.last]
            found: Any = reader.get(form(base + offset))
            assert (found and found["country"]["iso_code"]) == (
                codes[here[0].spot] if here else None
            )


def test_progress_in_the_tree_goes_forward_to_the_number_of_its_pieces() -> None:
    steps: list[tuple[int, int]] = []
    pieces = [Piece(2 * n, 2 * n, 0) for n in range(2 * STEP_RANGES + 1)]
    grow(pieces, [SearchTreeLeaf("here")], lambda done, of: steps.append((done, of)))
    assert steps == [(STEP_RANGES, len(pieces)), (2 * STEP_RANGES, len(pieces))]


def test_neighbours_that_say_the_same_are_one_network(tmp_path: Path) -> None:
    path = source(tmp_path, HEAD + "192.0.2.0/25,DE\n192.0.2.128/25,DE\n192.0.3.0/24,DE\n")
    with maxminddb.open_database(database(tmp_path, path)) as reader:
        _, bits = reader.get_with_prefix_len("192.0.2.7")
        assert bits == 23


def test_the_whole_of_ipv4_may_be_one_network(tmp_path: Path) -> None:
    made = database(tmp_path, source(tmp_path, HEAD + "0.0.0.0/0,DE\n"))
    assert looked_up(made, "255.255.255.255")["country"]["iso_code"] == "DE"
    assert looked_up(made, "2001:db8::1") is None


def test_a_record_is_as_maxminds_and_geoip2_reads_it(tmp_path: Path) -> None:
    path = source(tmp_path, HEAD + "192.0.2.0/24,DE,BE,Berlin,52,13\n")
    with geoip2.database.Reader(database(tmp_path, path)) as reader:
        city = reader.city("192.0.2.1")
        assert (city.country.name, city.continent.code) == ("Germany", "EU")
        assert (city.city.name, city.subdivisions.most_specific.iso_code) == ("Berlin", "BE")
        assert (city.location.latitude, city.location.longitude) == (52.0, 13.0)
        assert isinstance(city.location.latitude, float)


def test_the_type_is_city_only_where_more_than_countries_is_known(tmp_path: Path) -> None:
    for text, kind in (
        ("192.0.2.0/24,DE\n", "Edge-Country"),
        ("192.0.2.0/24,DE,BE\n", "Edge-City"),
    ):
        made = database(tmp_path, source(tmp_path, HEAD + text))
        with maxminddb.open_database(made) as reader:
            assert reader.metadata().database_type == kind
            assert reader.metadata().build_epoch == 1_700_000_000


def test_what_fails_leaves_the_old_database_and_nothing_else(tmp_path: Path) -> None:
    good = database(tmp_path, source(tmp_path, HEAD + "192.0.2.0/24,DE\n"))
    before = good.read_bytes()
    table = read([source(tmp_path, HEAD + "192.0.2.0/24,AT\n")])
    with pytest.raises(TypeError):
        build(table, good, built=1.7e9, notice=object())  # type: ignore[arg-type]
    assert good.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made.mmdb", "table.csv"]


# -- the data


def test_the_table_of_countries_is_whole_and_sound() -> None:
    text = (ROOT / "geo_data/countries.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len({row["country"] for row in rows}) == len(rows) == len(countries())
    assert {row["continent"] for row in rows} == {"AF", "AN", "AS", "EU", "NA", "OC", "SA"}
    for row in rows:
        Coordinates(float(row["latitude"]), float(row["longitude"]))
        assert row["name"].strip() == row["name"] != ""


def test_the_sample_has_only_networks_that_are_nobodys() -> None:
    ours = [
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32",
    ]  # fmt: skip
    homes = [ipaddress.ip_network(text) for text in ours]
    lines = (ROOT / "geo_data/sample.csv").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    for row in csv.DictReader(rows):
        network: Any = ipaddress.ip_network(row["network"])
        assert any(network.version == h.version and network.subnet_of(h) for h in homes)


def test_the_sample_is_on_three_continents_and_more(tmp_path: Path) -> None:
    sample.make(tmp_path / "s.mmdb", built=1.7e9)
    found = [
        looked_up(tmp_path / "s.mmdb", address)["continent"]["code"]
        for address in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8:4::1", "10.5.0.1")
    ]
    assert found == ["EU", "NA", "AS", "SA", "AF"]


# -- the tool


SCRIPT = ROOT / "tools/geodata"


@pytest.fixture(scope="module")
def run() -> Callable[..., Result]:
    loader = SourceFileLoader("geodata", str(SCRIPT))
    spec = spec_from_loader("geodata", loader)
    assert spec is not None
    tool = module_from_spec(spec)
    loader.exec_module(tool)
    return lambda *arguments: CliRunner().invoke(
        tool.main, [str(each) for each in arguments], prog_name="tools/geodata"
    )


def test_it_is_called_as_a_program() -> None:
    command = [sys.executable, str(SCRIPT), "--help"]
    assert "Usage: tools/geodata" in subprocess.check_output(command, text=True)
    assert SCRIPT.stat().st_mode & 0o111


def test_sample_build_and_look_go_together(tmp_path: Path, run: Callable[..., Result]) -> None:
    made = run("build", ROOT / "geo_data/sample.csv", "--out", tmp_path / "x.mmdb")
    assert made.exit_code == 0, made.stderr
    assert "Edge-City" in made.stdout
    assert "20 networks in 1 file(s)" in made.stderr
    looked = run("look", "192.0.2.200", "10.8.0.1", "8.8.8.8", "--database", tmp_path / "x.mmdb")
    assert looked.exit_code == 0, looked.stderr
    assert "192.0.2.128/25" in looked.stdout
    assert "DE-BE" in looked.stdout
    assert "Berlin" in looked.stdout
    assert "61.36, -98.31 (the middle of the country" in looked.stdout
    assert "8.8.8.8\n  not in the database" in looked.stdout


def test_look_prints_json_a_line_each(tmp_path: Path, run: Callable[..., Result]) -> None:
    assert run("sample", "--out", tmp_path / "s.mmdb").exit_code == 0
    looked = run("look", "--json", "2001:db8:6::1", "8.8.8.8", "--database", tmp_path / "s.mmdb")
    known, unknown = map(json.loads, looked.stdout.splitlines())
    assert known == {
        "address": "2001:db8:6::1",
        "network": "2001:db8:6::/48",
        "country": "AU",
        "country_name": "Australia",
        "continent": "OC",
        "subdivision": "AU-NSW",
        "city": "Sydney",
        "latitude": -33.87,
        "longitude": 151.21,
        "middle_of_country": False,
    }
    assert (unknown["network"], unknown["country"], unknown["latitude"]) == (None, "", None)


def test_trouble_is_one_line_and_exit_code_1(tmp_path: Path, run: Callable[..., Result]) -> None:
    bad = source(tmp_path, HEAD + "junk,DE\n")
    sample.make(tmp_path / "s.mmdb")
    for done, words in (
        (run("build", bad, "--out", tmp_path / "o.mmdb"), f"{bad}:2: 'junk' does not"),
        (run("build", tmp_path / "none", "--out", tmp_path / "o.mmdb"), "No such file"),
        (run("build", bad, "--out", tmp_path / "no" / "o.mmdb"), f"{bad}:2:"),
        (run("look", "192.0.2.1", "--database", bad), "no MaxMind-format database"),
        (run("look", "192.0.2", "--database", tmp_path / "s.mmdb"), "'192.0.2' does not appear"),
        (run("sample", "--out", tmp_path / "no" / "o.mmdb"), "No such file"),
    ):
        assert done.exit_code == 1
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "o.mmdb").exists()


def test_help_shows_how_it_is_called(run: Callable[..., Result]) -> None:
    for command in ([], ["build"], ["look"], ["sample"]):
        told = run(*command, "--help")
        assert told.exit_code == 0
        assert "tools/geodata" in told.stdout
    assert "tor-geoipdb" in run("build", "--help").stdout
