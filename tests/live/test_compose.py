"""The compose files are true: what they mount is there, and what they start does as they say.

Containers are not needed: the same settings are started as plain processes, with nothing changed
but addresses and directories.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from edge.command.asking import Node as Admin
from tests.live.harness import Client, eventually
from tools.composed import PROGRAMS, Part, parts, services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live.harness import Answer

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose"
FILES = sorted(COMPOSE.glob("*.yaml"))
NODES = ("edge", "origin-shield")
READY_S = 30.0


def told(file: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(file.read_text())
    return read


def test_there_are_the_three() -> None:
    assert [file.stem for file in FILES] == ["regions", "single", "two_tier"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_mounted_started_and_built_is_there(file: Path) -> None:
    read = told(file)
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (COMPOSE / "Dockerfile").read_text(), re.MULTILINE)
    for name, service in read["services"].items():
        assert service["command"][0] in PROGRAMS, name
        build = service["build"]
        assert (file.parent / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] == COMPOSE / "Dockerfile"
        assert build["target"] in stages
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (file.parent / source).is_file(), mount
            else:
                assert source in read["volumes"], mount
        for secret in service.get("secrets", ()):
            assert secret["source"] in read["secrets"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_secrets_stand_in_no_file(file: Path) -> None:
    for source in told(file).get("secrets", {}).values():
        assert list(source) == ["environment"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored  # what is not named as wanted is in no image


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shield_that_others_wait_for_tells_how_it_is(file: Path) -> None:
    for name, service in told(file)["services"].items():
        needs = service.get("depends_on", {})
        for other in [each for each in needs if needs[each]["condition"] == "service_healthy"]:
            asked = told(file)["services"][other]["healthcheck"]["test"]
            assert asked[1:3] == [told(file)["services"][other]["command"][0], "status"], name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_published_ports_are_the_ones_that_nodes_listen_on(file: Path) -> None:
    listening = services(file)
    for name, service in told(file)["services"].items():
        for port in service.get("ports", ()):
            (settings,) = [
                file.parent / source
                for source in listening[name].mounts.values()
                if source.endswith(".toml")
            ]
            (address,) = tomllib.loads(settings.read_text())["node"]["listen"]
            assert address == f"0.0.0.0:{port.split(':')[1]}"


def test_edges_of_two_regions_differ_in_name_and_place_alone() -> None:
    fra, iad = (
        tomllib.loads((COMPOSE / f"regions/{name}.toml").read_text()) for name in ("fra1", "iad1")
    )
    assert (fra["node"].pop("name"), iad["node"].pop("name")) == ("fra1", "iad1")
    assert fra["node"].pop("at") != iad["node"].pop("at")
    assert fra == iad


class Running:
    """The processes of a compose file, by the names of its services."""

    def __init__(self, made: list[Part], into: Path) -> None:
        self._parts = {part.name: part for part in made}
        self._into = into
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        part = self._parts[name]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        if part.is_once:
            subprocess.run(part.command, cwd=ROOT, env=environment, check=True, timeout=READY_S)
            return
        log = self._into / f"{name}.log"
        with log.open("wb") as output:
            self._processes[name] = subprocess.Popen(
                part.command, cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        is_ready = eventually(lambda: b"ready " in log.read_bytes(), READY_S)
        assert is_ready, log.read_text()

    def stop(self, name: str) -> int:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(READY_S)
        finally:
            process.kill()

    def kill(self) -> None:
        """What still runs: at once, and with all its workers."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def ask(self, name: str, target: str, *fields: str) -> Answer:
        """What a service answers to a client of shop.example."""
        address = self._parts[name].address
        assert address is not None
        with Client(urlsplit(address).port or 0) as client:
            return client.ask("GET", target, ["Host: shop.example", *fields])

    def admin(self, name: str) -> Admin:
        return Admin(self._into / name / "admin.sock")


@contextmanager
def running(name: str, into: Path) -> Iterator[Running]:
    """All that a compose file starts, in its order."""
    made = parts(COMPOSE / f"{name}.yaml", into, {})
    processes = Running(made, into)
    with ExitStack() as stack:
        stack.callback(processes.kill)
        for part in made:
            processes.start(part.name)
        yield processes


def members(answer: Answer) -> list[str]:
    """Who tells of the answer in Cache-Status, and in a word what it did."""
    told = (answer.field("cache-status") or "").split(", ")
    return [" ".join(re.split("; ?", member)[:2]) for member in told]


def test_single_caches(tmp_path: Path) -> None:
    with running("single", tmp_path) as up:
        first, second = up.ask("edge", "/logo.png?utm_source=x"), up.ask("edge", "/logo.png")
        assert (first.status, members(first)) == (200, ["edge1 fwd=uri-miss"])
        assert (second.body, members(second)) == (first.body, ["edge1 hit"])
        assert up.admin("edge").get("/v1/status")["name"] == "edge1"
        assert up.stop("edge") == 0


def test_two_tiers_answer_and_a_silent_shield_is_not_gone_around(tmp_path: Path) -> None:
    with running("two_tier", tmp_path) as up:
        miss = up.ask("edge", "/logo.png")
        assert members(miss) == ["shield1 fwd=uri-miss", "edge1 fwd=uri-miss"]
        assert members(up.ask("edge", "/logo.png"))[-1] == "edge1 hit"
        assert up.ask("shield", "/logo.png").status == 403  # whoever is no edge
        assert up.stop("shield") == 0
        assert up.ask("edge", "/account").status == 502
        assert up.ask("edge", "/logo.png").body == miss.body


CONTINENTS = {"192.0.2.1": ("eu", "DE"), "198.51.100.1": ("us", "US"), "203.0.113.1": ("ap", "SG")}


def test_regions_are_served_by_the_nearest_origin_through_the_shield(tmp_path: Path) -> None:
    with running("regions", tmp_path) as up:
        for address, (origin, country) in CONTINENTS.items():
            for edge in ("fra1", "iad1"):
                answer = up.ask(edge, "/where", f"X-Forwarded-For: {address}")
                assert answer.body.decode() == f"origin {origin}, for a client in {country}\n"
        assert members(up.ask("fra1", "/logo.png")) == [
            "shield1 fwd=uri-miss",
            "fra1 fwd=uri-miss",
        ]
        assert members(up.ask("iad1", "/logo.png")) == ["shield1 hit", "iad1 fwd=uri-miss"]
        up.admin("fra1").post("/v1/purge", {"url": ["http://shop.example/logo.png"]})
        assert members(up.ask("fra1", "/logo.png")) == [
            "shield1 fwd=uri-miss",
            "fra1 fwd=uri-miss",
        ]
        assert_arms(up)
        assert up.ask("fra1", "/old/logo.png").field("location") == "http://shop.example/logo.png"
        up.admin("shield").post("/v1/origins/drain", {"servers": ["eu"]})
        answer = up.ask("fra1", "/where", "X-Forwarded-For: 192.0.2.1")
        assert answer.body == b"origin us, for a client in DE\n"
        assert up.stop("shield") == 0
        assert up.ask("fra1", "/where").status == 200  # asked of the origin itself


def assert_arms(up: Running) -> None:
    """Visitors are in both arms, each in the same one on both edges, and see it."""
    seen = set()
    for visitor in range(12):
        told = [up.ask(edge, "/", f"Cookie: visitor={visitor}") for edge in ("fra1", "iad1")]
        (arm,) = {(each.field("set-cookie") or "").split(";")[0] for each in told}
        assert all((b"The new page" in each.body) == (arm == "ab_front=new") for each in told)
        seen.add(arm)
    assert seen == {"ab_front=old", "ab_front=new"}
