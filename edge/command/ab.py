"""`edge ab`: how experiments do, and orders about them (see `origin` for how those end)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edge.command.console import answering, json_option, node_at, print_result, socket_option
from edge.command.origin import check_text, finite, order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@click.group()
def ab() -> None:
    """Look at experiments, give an arm another weight, or stop one.

    An experiment is called by its name, or by its site and name where several sites have one of
    that name. An order holds until it is taken back or the settings name another weight, also
    over a restart of the node.

    \b
    Examples:
        edge ab list
        edge ab ramp checkout-2026 new 20%
        edge ab stop shop.example/checkout-2026 --on control
        edge ab resume checkout-2026
    """


@ab.command("list")
@json_option
@socket_option
def list_experiments(path: Path, *, as_json: bool) -> None:
    """List experiments: weights and shares of arms, and what was counted for each.

    \b
    Example:
        edge ab list --json | jq '.experiments[].arms[] | {name, share, hit_ratio}'
    """
    from edge.command.standing import experiments

    with answering(as_json=as_json):
        document = node_at(path).get("/v1/experiments")
        print_result(document if as_json else "\n".join(experiments(document)))


@ab.command()
@click.argument("name")
@click.argument("arm")
@click.argument("weight", required=False)
@click.option("--reset", is_flag=True, help="The weight that the settings say.")
@json_option
@socket_option
def ramp(
    name: str, arm: str, weight: str | None, path: Path, *, reset: bool, as_json: bool
) -> None:
    """Give an arm another weight: a number beside the others', or a share like 20%.

    Visitors move into an arm whose weight is raised, and nowhere else.

    \b
    Examples:
        edge ab ramp checkout-2026 new 20%
        edge ab ramp checkout-2026 new 25
        edge ab ramp checkout-2026 new --reset
    """
    if reset == (weight is not None):
        raise click.UsageError("give a weight like 25 or 20%, or --reset")
    asked = {"arm": arm, **(_weight(weight) if weight is not None else {})}
    _order(path, "/v1/experiments/ramp", name, asked, as_json=as_json)


def _weight(text: str) -> dict[str, float]:
    is_share = text.endswith("%")
    number = finite(text.removesuffix("%"), "write 25, or a share like 20%")
    return {"share": number / 100} if is_share else {"weight": number}


@ab.command()
@click.argument("name")
@click.option("--on", "arm", metavar="ARM", help='What everyone is given; else "control", else the first arm.')  # fmt: skip # noqa: E501
@json_option
@socket_option
def stop(name: str, arm: str | None, path: Path, *, as_json: bool) -> None:
    """Stop an experiment: everyone is given one arm, until it is resumed.

    \b
    Examples:
        edge ab stop checkout-2026
        edge ab stop checkout-2026 --on new
    """
    _order(path, "/v1/experiments/stop", name, {"arm": arm}, as_json=as_json)


@ab.command()
@click.argument("name")
@json_option
@socket_option
def resume(name: str, path: Path, *, as_json: bool) -> None:
    """Go on with a stopped experiment, with the weights that it had.

    \b
    Example:
        edge ab resume checkout-2026
    """
    _order(path, "/v1/experiments/resume", name, {}, as_json=as_json)


def _order(path: Path, route: str, name: str, asked: Mapping[str, Any], *, as_json: bool) -> None:
    from edge.command.standing import experiment_ordered

    for word in (name, asked.get("arm") or ""):
        check_text(word)
    order(path, route, {"experiment": name, **asked}, experiment_ordered, as_json=as_json)
