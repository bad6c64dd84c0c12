"""Experiments on running nodes of two workers: who is in which arm, and what orders change."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from edge.routing.experiment import Arm, Experiment
from edge.routing.visitors import VisitorId
from edge.wire.cookies import CookieTerms
from edge.wire.message import Headers, RequestHead
from tests.live import tiers
from tests.live.fault_load import Client
from tests.live.hostile_harness import Origin, plain
from tests.live.tiers import order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.live.hostile_harness import Answer, Asked, Node, Wire

pytestmark = pytest.mark.live

VISITORS = 3_000  # of a running node


def experiment(*, new: str = "", weights: tuple[int, int] = (90, 10)) -> str:
    return f"""
[[site.experiment]]
name = "checkout"
cookie = {{ name = "ab" }}
visitor = "uid"
arms = {{ control = {{ weight = {weights[0]} }}, new = {{ weight = {weights[1]}{new} }} }}
"""


CHANGES = ', header = { "X-Checkout" = "new" }'


def respond(asked: Asked, wire: Wire) -> None:
    """Says which arm the origin was told of."""
    told = asked.field("x-checkout") or "control"
    wire.send(plain(f"for {told}".encode(), "Cache-Control: max-age=3600"))


@contextmanager
def nodes(tmp_path: Path, **sites: str) -> Iterator[tuple[Origin, list[Node]]]:
    """An origin, and nodes by their names with what more there is of their sites."""
    with Origin(respond) as origin, ExitStack() as stack:
        made = [
            stack.enter_context(tiers.edge(tmp_path, name, {"a": [origin.url]}, site=site))
            for name, site in sites.items()
        ]
        yield origin, made


def visit(client: Client, target: str, *cookies: str) -> Answer:
    answer = client.ask(target, *([f"Cookie: {'; '.join(cookies)}"] if cookies else []))
    assert answer is not None
    assert answer.status == 200
    return answer


def arm_told(answer: Answer) -> str | None:
    """The arm that a newcomer is given by Set-Cookie."""
    found = re.match(r"ab=([a-z]+);", answer.field("set-cookie") or "")
    return found[1] if found else None


def arms_of(node: Node, visitors: range = range(VISITORS)) -> dict[int, str | None]:
    """Which arm each visitor is given who comes with nothing but the site's own id."""
    with closing(Client(node.port)) as client:
        return {number: arm_told(visit(client, "/", f"uid=v{number}")) for number in visitors}


def those_in(arms: dict[int, str | None], name: str) -> set[int]:
    return {number for number, arm in arms.items() if arm == name}


def share_of(arms: dict[int, str | None], name: str) -> float:
    return list(arms.values()).count(name) / len(arms)


def test_a_visitor_has_one_arm_on_all_nodes_and_nobody_leaves_one_that_is_raised(
    tmp_path: Path,
) -> None:
    site = experiment(new=CHANGES)
    with nodes(tmp_path, edge1=site, edge2=site) as (_, (one, two)):
        before = arms_of(one)
        assert arms_of(two) == before
        law = arms_by_law(90, 10)  # of so many that shares can be told
        assert before == {number: law[number] for number in before}
        assert share_of(law, "new") == pytest.approx(0.10, abs=0.005)

        for node in (one, two):
            assert "20" in order(node, "ab", "ramp", "checkout", "new", "20%")
        after = arms_of(one)
        assert arms_of(two) == after
        raised = arms_by_law(90, 22.5)
        assert after == {number: raised[number] for number in after}
        assert share_of(raised, "new") == pytest.approx(0.20, abs=0.005)
        assert those_in(before, "new") < those_in(after, "new")
        assert those_in(law, "new") < those_in(raised, "new")

        order(one, "ab", "ramp", "checkout", "new", "--reset")
        assert arms_of(one) == before


def arms_by_law(*weights: float) -> dict[int, str | None]:
    """What `routing.experiment` says of 100,000 visitors, those of the nodes among them."""
    arms = tuple(
        Arm(name, weight) for name, weight in zip((b"control", b"new"), weights, strict=True)
    )
    told = Experiment(
        b"checkout",
        CookieTerms(b"ab"),
        arms,
        visitor=VisitorId("cookie", b"uid"),
        key=b"checkout",
    )
    given = {}
    for number in range(100_000):
        headers = Headers([(b"cookie", b"uid=v%d" % number)])
        assigned = told.assign(RequestHead(b"GET", b"http", b"a", b"/", headers), 0.5)
        given[number] = assigned.arm.name.decode() if assigned else None
    return given


def test_who_has_an_arm_stays_in_it_and_is_served_by_it(tmp_path: Path) -> None:
    with nodes(tmp_path, edge1=experiment(new=CHANGES)) as (origin, (node,)):
        with closing(Client(node.port)) as client:
            for turn in range(40):
                arm = ("control", "new")[turn % 2]
                answer = visit(client, "/", f"ab={arm}", f"uid=v{turn}")
                assert answer.body == f"for {arm}".encode()
                assert answer.field("set-cookie") is None
            stranger = visit(client, "/", "ab=nobody", "uid=v1")
            assert arm_told(stranger) in ("control", "new")
        assert len(origin.asked_for("/")) == 2  # one of each arm
        arms = json.loads(order(node, "ab", "list", "--json"))["experiments"][0]["arms"]
        assert sum(arm["requests"] for arm in arms) == 41
        assert {arm["name"]: arm["statuses"].get("2xx") for arm in arms}["new"] in (20, 21)


def test_an_experiment_that_is_stopped_gives_everyone_one_arm_until_it_is_resumed(
    tmp_path: Path,
) -> None:
    with nodes(tmp_path, edge1=experiment(new=CHANGES)) as (_, (node,)):
        before = arms_of(node, range(100))
        assert set(before.values()) == {"control", "new"}
        for arm in ("new", "control"):
            assert f"everyone has {arm}" in order(node, "ab", "stop", "checkout", "--on", arm)
            assert f"everyone has {arm}" in order(node, "ab", "list")
            for number in range(20):  # on connections of their own: of both workers
                with closing(Client(node.port)) as client:
                    for cookies in ((f"uid=v{number}",), ("ab=new",), ("ab=control",), ()):
                        answer = visit(client, "/", *cookies)
                        assert answer.body == f"for {arm}".encode()
                        assert answer.field("set-cookie") is None
        assert "running" in order(node, "ab", "resume", "checkout")
        assert arms_of(node, range(100)) == before


def test_an_experiment_that_changes_nothing_costs_no_hit(tmp_path: Path) -> None:
    """Every visitor is new; the targets are asked for as often as popular ones are."""
    targets = [f"/{n * n % 97 % 40}" for n in range(1_000)]
    with nodes(tmp_path, edge1=experiment(), edge2="", edge3=experiment(new=CHANGES)) as (
        origin,
        made,
    ):
        hits, asked = [], []
        for node in made:
            origin.clear()
            with closing(Client(node.port)) as client:
                answers = [visit(client, each, f"uid=v{n}") for n, each in enumerate(targets)]
            hits.append([answer.is_hit for answer in answers])
            asked.append(len(origin.asked))
        neutral, without, telling = hits
        assert neutral == without
        assert sum(neutral) == 1_000 - len(set(targets))
        assert sum(telling) < sum(neutral)  # where an arm changes something it has its own
        assert asked[0] == asked[1] == len(set(targets))
