"""What is behind a node, over readings of its settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.config import Config, behind
from edge.config.notation import SecretSettings
from edge.routing.geo import NOWHERE
from edge.routing.health import Outcome, State, Told
from edge.surroundings.behind import OPEN_AGAIN_S, WATCH_S, Behind, Surroundings, nowhere, told
from edge.surroundings.standing import (
    Checked,
    NamedServer,
    Roll,
    Standing,
    drained,
    found,
    ramped,
    weighted,
)
from tests.unit.databases import BUILT, record, write_database
from tests.unit.edgeparts import config_of

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

TWO = 'origin.default.servers=["http://a","http://b"]'
ARMED = 'site.experiment=[{name="e",cookie={name="c"},arms={x={weight=1},y={weight=1}}}]'
PEER = b"192.0.2.1"


class Around(Surroundings):
    """Surroundings that say to a list what they have to tell."""

    def __init__(self, **options: Any) -> None:
        self.lines: list[tuple[str, str]] = []
        self.told = trio.Event()
        self.now = BUILT
        super().__init__(now=lambda: self.now, chance=lambda: 0.5, tell=self._say, **options)

    def _say(self, kind: str, line: str) -> None:
        self.lines.append((kind, line))
        self.told.set()

    def taken_up(self, config: Config, nursery: trio.Nursery) -> Behind:
        made = self.made(config)
        self.take_up(config, made, nursery)
        return made

    def states(self) -> list[str]:
        return [each["state"] for each in self.statistics()["servers"]]


def database(path: Path, country: str) -> Path:
    return write_database(path, {"192.0.2.0/24": record(country)})


def descriptors() -> set[str]:
    """The files that are open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return found


async def test_what_is_made_is_not_yet_gone_by(nursery: trio.Nursery) -> None:
    around = Around()
    made = around.made(config_of())
    assert list(made.groups) == ["default"]
    assert (made.now(), made.chance()) == (BUILT, 0.5)
    assert around.statistics()["origins"] == {}
    around.take_up(config_of(), made, nursery)
    assert list(around.statistics()["origins"]) == ["default"]


async def test_groups_outlive_settings_as_far_as_they_are_the_same(nursery: trio.Nursery) -> None:
    around = Around()
    before = around.taken_up(config_of(), nursery).groups["default"]
    assert around.taken_up(config_of("site.cache.ttl=1s"), nursery).groups["default"] is before
    after = around.taken_up(config_of("origin.default.at_work=9"), nursery).groups["default"]
    assert after is not before
    assert after.upstreams == before.upstreams
    limited = around.taken_up(config_of("limits.response_fields=9"), nursery).groups["default"]
    assert limited.limits.fields == 9


async def test_settings_that_cannot_be_used_change_nothing(nursery: trio.Nursery) -> None:
    around = Around(insists=True)
    before = around.taken_up(config_of(), nursery)
    for sets, error in (
        (("node.geo=/none.mmdb",), OSError),
        (("origin.default.ca=/none.pem",), ValueError),
    ):
        with pytest.raises(error, match="/none"):
            around.made(config_of(*sets, to="https://origin.example"))
    again = around.made(config_of())
    assert again.groups["default"] is before.groups["default"]
    assert again.places is None


def test_a_process_that_runs_does_without_a_database_that_has_gone() -> None:
    around = Around()
    made = around.made(config_of("node.geo=/none.mmdb"))
    assert made.places is None
    assert made.place_of(PEER) is NOWHERE
    ((kind, line),) = around.lines
    assert kind == "geo"
    assert line.startswith("clients' places are unknown: ")
    assert "/none.mmdb" in line


def test_where_origins_are_not_asked_there_are_no_groups() -> None:
    assert Around(asks=False).made(config_of()).groups == {}


# --- places


def test_without_a_database_everyone_is_nowhere() -> None:
    made = Around().made(config_of())
    assert made.place_of is nowhere
    assert made.place_of(PEER) is NOWHERE


async def test_the_database_stays_open_while_its_path_is_the_same(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    around, path = Around(), database(tmp_path / "a.mmdb", "DE")
    first = around.taken_up(config_of(f"node.geo={path}"), nursery)
    assert first.place_of(PEER).country == "DE"
    second = around.taken_up(config_of(f"node.geo={path}", "site.cache.ttl=1s"), nursery)
    assert second.places is first.places
    await wait_all_tasks_blocked()
    assert second.place_of(b"192.0.2.2").country == "DE"
    assert around.statistics()["places"]["path"] == str(path)
    nursery.cancel_scope.cancel()


async def test_another_database_takes_its_place_and_the_old_one_is_closed(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    around, paths = Around(), [database(tmp_path / f"{c}.mmdb", c) for c in ("DE", "FR")]
    for path, country in zip(paths, ("DE", "FR"), strict=True):
        made = around.taken_up(config_of(f"node.geo={path}"), nursery)
        assert made.place_of(PEER).country == country
    await wait_all_tasks_blocked()
    assert str(paths[0]) not in descriptors()
    assert str(paths[1]) in descriptors()
    around.taken_up(config_of(), nursery)
    await wait_all_tasks_blocked()
    assert str(paths[1]) not in descriptors()
    assert around.statistics()["places"] is None
    back = around.taken_up(config_of(f"node.geo={paths[0]}"), nursery)
    assert back.place_of(PEER).country == "DE"
    nursery.cancel_scope.cancel()


async def test_a_node_that_ends_lets_go_of_its_database(tmp_path: Path) -> None:
    path = database(tmp_path / "a.mmdb", "DE")
    async with trio.open_nursery() as nursery:
        Around().taken_up(config_of(f"node.geo={path}"), nursery)
        await wait_all_tasks_blocked()
        assert str(path) in descriptors()
        nursery.cancel_scope.cancel()
    assert str(path) not in descriptors()


async def test_a_database_that_is_replaced_is_followed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    around, path = Around(), database(tmp_path / "a.mmdb", "DE")
    async with trio.open_nursery() as nursery:
        made = around.taken_up(config_of(f"node.geo={path}"), nursery)
        database(tmp_path / "new.mmdb", "FR").replace(path)
        await around.told.wait()
        assert made.place_of(PEER).country == "FR"
        assert "was replaced" in around.lines[0][1]
        nursery.cancel_scope.cancel()


# --- places that come later


class Renewed(Around):
    """Surroundings whose parts are made anew as a worker makes them."""

    def __init__(self, config: Config, nursery: trio.Nursery) -> None:
        self.config, self.nursery, self.known = config, nursery, trio.Event()
        super().__init__(renew=self._made_anew)
        self.parts = self.taken_up(config, nursery)

    def _made_anew(self) -> None:
        self.parts = self.taken_up(self.config, self.nursery)
        self.known.set()


async def test_places_are_known_as_soon_as_there_is_a_database(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "a.mmdb"
    async with trio.open_nursery() as nursery:
        around = Renewed(config_of(f"node.geo={path}"), nursery)
        assert around.parts.place_of(PEER) is NOWHERE
        await trio.sleep(3 * OPEN_AGAIN_S)
        assert len(around.lines) == 1  # it is told once, not at every look
        assert around.parts.places is None
        database(path, "DE")
        with trio.fail_after(2 * OPEN_AGAIN_S):
            await around.known.wait()
        assert around.parts.place_of(PEER).country == "DE"
        assert around.statistics()["places"]["path"] == str(path)
        database(tmp_path / "new.mmdb", "FR").replace(path)  # which is followed from now on
        around.told = trio.Event()
        await around.told.wait()
        assert around.parts.place_of(PEER).country == "FR"
        nursery.cancel_scope.cancel()
    assert str(path) not in descriptors()


async def test_a_file_that_is_no_database_is_waited_out(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "a.mmdb"
    path.write_bytes(b"half of it")
    async with trio.open_nursery() as nursery:
        around = Renewed(config_of(f"node.geo={path}"), nursery)
        await trio.sleep(2 * OPEN_AGAIN_S)
        assert around.parts.places is None
        database(tmp_path / "new.mmdb", "DE").replace(path)
        await around.known.wait()
        assert around.parts.place_of(PEER).country == "DE"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("came", [False, True])
async def test_settings_of_another_database_end_the_wait_for_the_first(
    tmp_path: Path, autojump_clock: MockClock, came: bool
) -> None:
    first, second = tmp_path / "a.mmdb", database(tmp_path / "b.mmdb", "FR")
    async with trio.open_nursery() as nursery:
        around = Renewed(config_of(f"node.geo={first}"), nursery)
        if came:
            database(first, "DE")
            await around.known.wait()
        other = around.taken_up(config_of(f"node.geo={second}"), nursery)
        await trio.sleep(3 * OPEN_AGAIN_S)
        database(first, "DE")
        await trio.sleep(3 * OPEN_AGAIN_S)
        assert other.place_of(b"192.0.2.77").country == "FR"  # it is open still
        assert around.statistics()["places"]["path"] == str(second)
        assert str(first) not in descriptors()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("came", [False, True])
async def test_settings_without_a_database_end_the_wait_for_one(
    tmp_path: Path, autojump_clock: MockClock, came: bool
) -> None:
    path = tmp_path / "a.mmdb"
    async with trio.open_nursery() as nursery:
        around = Renewed(config_of(f"node.geo={path}"), nursery)
        if came:
            database(path, "DE")
            await around.known.wait()
        around.taken_up(config_of(), nursery)
        database(path, "DE")
        await trio.sleep(3 * OPEN_AGAIN_S)
        assert around.statistics()["places"] is None
        assert str(path) not in descriptors()
        nursery.cancel_scope.cancel()


# --- secrets


def secret_file(path: Path, secret: str) -> SecretSettings:
    path.write_text(secret)
    path.chmod(0o600)
    return SecretSettings(file=path)


def test_a_process_that_runs_goes_by_the_secret_that_was_read_with_the_settings(
    tmp_path: Path,
) -> None:
    """So all of a node's go by one, whoever is started again meanwhile."""
    told = secret_file(tmp_path / "s", "a" * 16)
    parent, process, config = Around(insists=True), Around(), config_of()
    assert parent.made(config).secret_of(told, "s") == b"a" * 16
    secret_file(tmp_path / "s", "b" * 16)  # for the reload that is to come
    assert process.made(config).secret_of(told, "s") == b"a" * 16
    assert process.made(config, anew=True).secret_of(told, "s") == b"b" * 16
    assert process.made(config).secret_of(told, "s") == b"b" * 16


@pytest.mark.parametrize("anew", [False, True])
def test_a_secret_that_has_gone_ends_no_process(tmp_path: Path, anew: bool) -> None:
    told = secret_file(tmp_path / "s", "a" * 16)
    parent, config = Around(insists=True), config_of()
    parent.made(config).secret_of(told, "s")
    (tmp_path / "s").unlink()
    assert Around().made(config, anew=anew).secret_of(told, "s") == b"a" * 16
    with pytest.raises(ValueError, match="No such file"):
        parent.made(config).secret_of(told, "s")  # but settings with it are none to begin with


# --- who is left out


async def test_servers_that_are_left_out_for_how_they_answer_are_told_and_when_they_are_back(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        around = Around()
        eject = "origin.default.eject={after=2,for='10s'}"
        group = around.taken_up(config_of(TWO, eject), nursery).groups["default"]
        nursery.start_soon(around.watch)
        await trio.sleep(3 * WATCH_S)
        assert around.lines == []
        for _ in range(2):
            era = group.members.began(1, around.now)
            group.members.ended(1, era, around.now, Outcome.BAD)
        await around.told.wait()
        out = "default http://b:80 is left out for a while: it fails, or is too slow"
        assert around.lines == [("origins", out)]
        await trio.sleep(5 * WATCH_S)
        assert len(around.lines) == 1  # once, not at every look
        around.now += 11.0
        group.members.choose(around.now)
        await trio.sleep(2 * WATCH_S)
        assert around.lines[1:] == [("origins", "default http://b:80 is asked again")]
        nursery.cancel_scope.cancel()


# --- what is ordered


async def test_checks_and_orders_are_heeded_also_by_groups_that_come_later(
    nursery: trio.Nursery,
) -> None:
    around, config = Around(), config_of(TWO)
    standing = found(Standing(), "default http://b:80", is_up=False, why="refused", now=1.0)
    assert not around.heed(standing, config)
    around.taken_up(config, nursery)
    assert around.states() == ["up", "down"]
    around.taken_up(config_of(TWO, "origin.default.at_work=9"), nursery)
    assert around.states() == ["up", "down"]
    around.heed(Standing(), config)
    assert around.states() == ["up", State.WARMING]


async def test_who_has_other_experiments_to_go_by_is_told_so(nursery: trio.Nursery) -> None:
    around, config = Around(), config_of(TWO, ARMED)
    around.taken_up(config, nursery)
    roll = behind.roll(config)
    ordered = ramped(Standing(), roll.experiments[0], "y", 3.0)
    assert around.heed(ordered, config)
    assert not around.heed(ordered, config)
    assert around.made(config).standing is ordered
    assert not around.heed(drained(ordered, roll.servers[:1]), config)
    assert around.states() == ["drained", "up"]
    assert around.heed(Standing(), config)


def test_servers_are_told_what_was_found_and_ordered_of_them() -> None:
    a, b, c = (NamedServer("eu", f"http://{name}:80") for name in "abc")
    standing = found(Standing(), a.id, is_up=True, why="", now=1.0)
    standing = found(standing, b.id, is_up=False, why="refused", now=1.0)
    standing = weighted(drained(standing, [b]), [a], 2.5)
    assert told(standing, Roll((a, b, c))) == {
        a.id: Told(up=True, weight=2.5),
        b.id: Told(up=False, drained=True),
        c.id: Told(),
    }
    assert set(Checked) == {Checked.UP, Checked.DOWN, Checked.UNKNOWN}


async def test_statistics_tell_of_each_origin_and_of_each_server(nursery: trio.Nursery) -> None:
    around = Around()
    around.taken_up(config_of(TWO), nursery)
    state = around.statistics()
    assert state["origins"]["default"]["queued"] == state["origins"]["default"]["waiting"] == 0
    assert [each["id"] for each in state["servers"]] == [
        "default http://a:80",
        "default http://b:80",
    ]
    first = state["servers"][0]
    assert (first["name"], first["weight"], first["latency_s"]) == ("default", 1.0, 0.0)
