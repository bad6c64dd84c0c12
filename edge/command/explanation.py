"""An explanation as `edge explain` prints it: the verdict, how it came to it, and the rest.

As total as what it is printed beside (see `telling`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.command.status import as_text, size, told
from edge.command.telling import at, or_dash, span, when

_Section = Mapping[str, Any]
_FIRST: Final = ("verdict", "decision", "coding")


def explained(document: Mapping[str, Any]) -> str:
    """What a node would do with a request: the verdict, how it came to it, and the rest.

    What there is nothing to tell of is left out. The document has plain numbers, for programs;
    here they have units, and moments are told by how long ago they were.
    """
    request = document.get("request")
    now = _number(request, "at") if isinstance(request, Mapping) else None
    sections: dict[str, Any] = {}
    for name in dict.fromkeys((*_FIRST, *document)):
        value = document.get(name)
        teller = _SECTIONS.get(name)
        if isinstance(value, Mapping):
            value = value if teller is None else teller(value, now)
        sections[name] = _kept(value) if isinstance(value, Mapping) else value
    return as_text(_kept(sections))


def _kept(table: _Section) -> dict[str, Any]:
    """`table` without names that have nothing behind them."""
    return {name: value for name, value in table.items() if value not in (None, "", [], {})}


def _rest(table: _Section, *names: str) -> dict[str, Any]:
    """What is left of `table` besides `names`: what is not known here is told as it is."""
    return {name: value for name, value in table.items() if name not in names}


def _number(table: _Section, name: str) -> float | None:
    value = table.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e15 else None


def _table(table: _Section, name: str) -> _Section:
    value = table.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(table: _Section, name: str) -> list[Any]:
    value = table.get(name)
    return value if isinstance(value, list) else []


def _rows(pairs: _Section) -> list[str]:
    """Names as they are, one a line, with their values: `cookie lang  de`."""
    width = max((len(str(name)) for name in pairs), default=0)
    return [f"{name:<{width}}  {told('', value)}" for name, value in pairs.items()]


def _moment(table: _Section, name: str, now: float | None) -> str:
    """`2026-11-21T07:59:01Z (1 s ago)`; empty where there is none."""
    moment = _number(table, name)
    if moment is None:
        return ""
    if now is None:
        return when(moment)
    away = span(abs(now - moment))
    words = f"{away[:-1]} {away[-1]}"
    return f"{when(moment)} ({f'{words} ago' if moment <= now else f'in {words}'})"


def _verdict(table: _Section, _now: float | None) -> Any:
    outcome, reason, status = (at(table, name) for name in ("outcome", "reason", "status"))
    says = str(table.get("says") or "")
    head = says if says.startswith(outcome) else f"{outcome}: {says}"
    behind = [reason] if reason not in ("-", outcome) else []
    behind += [f"status {status}"] if status != "-" else []
    line = f"{head} [{', '.join(behind)}]" if behind else head
    rest = _rest(table, "outcome", "reason", "status", "says")
    return {"says": line, **rest} if rest else line


def _coding(table: _Section, _now: float | None) -> Any:
    """`br (of br, zstd, gzip), stored, 1234 bytes, 23 % of 5432`."""
    rest = _rest(table, "coding", "why", "says", "state", "bytes", "of_bytes", "dictionary")
    line = str(table.get("says") or "")
    return {"says": line, **rest} if rest else line


def _request(table: _Section, _now: float | None) -> dict[str, Any]:
    address, client = at(table, "from"), table.get("client")
    trusted = ", a trusted proxy" if table.get("trusted") is True else ""
    return {
        "for": f"{at(table, 'method')} {at(table, 'url')}",
        "from": f"{address}{trusted}",
        "client": client if client != address else None,
        **_rest(table, "at", "method", "url", "from", "trusted", "client"),
    }


def _site(table: _Section, _now: float | None) -> dict[str, Any]:
    rule, rules = table.get("rule"), _number(table, "rules")
    count = "" if rules is None else f" of {rules:.0f}"
    words = f"none{count} takes it; the site's own terms hold" if rules else None
    if isinstance(rule, Mapping):
        index = _number(rule, "index")
        place = "-" if index is None else f"{index + 1:.0f}"
        words = f"{place}{count}: {at(rule, 'match')} (the first match wins)"
    cache = [f"{name} = {_setting(name, value)}" for name, value in _table(table, "cache").items()]
    return {"name": table.get("name"), "host": table.get("host"), "rule": words, "cache": cache,
            **_rest(table, "name", "host", "rule", "rules", "cache")}  # fmt: skip


def _setting(name: str, value: object) -> str:
    """A setting's value about as it is written: all its numbers but shares are durations."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float) or name.endswith("fraction"):
        return told("", value)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if value and math.isfinite(value) and value % length == 0:
            return f"{value // length:.0f}{unit}"
    return f"{_digits(value)}s"


def _key(table: _Section, _now: float | None) -> dict[str, Any]:
    return {
        "url": table.get("url"),
        "parts": _rows(_table(table, "parts")),
        **_rest(table, "url", "parts"),
    }


def _variant(table: _Section, _now: float | None) -> dict[str, Any]:
    asked, each = _table(table, "fields"), _list(table, "variants")
    known = [one for one in each if isinstance(one, Mapping)]
    misses = not any(all(asked.get(name) == one[name] for name in one) for one in known)
    purged = _number(table, "purged")
    return {
        "stored": f"{at(table, 'stored')}{f', of which purged: {purged:.0f}' if purged else ''}",
        "asked for": _rows(asked),
        "there is": [_fields(one) for one in known] if misses else None,
        **_rest(table, "stored", "purged", "fields", "variants"),
    }


def _fields(fields: _Section) -> str:
    return "; ".join(f"{name}: {or_dash(value)}" for name, value in fields.items())


def _stored(table: _Section, now: float | None) -> dict[str, Any]:
    length = _number(table, "bytes")
    retold = {
        "bytes": ("size", None if length is None else size(length)),
        "asked_at": ("asked_at", _moment(table, "asked_at", now)),
        "stored_at": ("stored_at", _moment(table, "stored_at", now)),
        "purge": ("looked up at purge", table.get("purge")),
        "other_variants": ("other_variants", table.get("other_variants") or None),
    }
    return dict(retold.get(name, (name, value)) for name, value in table.items())


def _freshness(table: _Section, now: float | None) -> dict[str, Any]:
    """Age and time to live as sums that add up to the tenth of a second."""
    names = (
        "age_s", "by_date_s", "by_age_field_s", "resident_s", "arrived_s", "lifetime_s", "source",
        "ended_early_s", "ttl_s", "always_validate", "keep_until",
    )  # fmt: skip
    return {
        "age": _age(table),
        "ttl": _ttl(table),
        **{name: _window(value) for name, value in _rest(table, *names).items()},
        "always validated": True if table.get("always_validate") is True else None,
        "kept until": _moment(table, "keep_until", now),
    }


def _window(value: object) -> object:
    """How long something stale may be used; None where it may not."""
    if isinstance(value, int | float) and value and math.isfinite(value):
        return _long(value)
    return value or None


def _age(table: _Section) -> str | None:
    age, arrived = _tenths(table, "age_s"), _tenths(table, "arrived_s")
    if age is None or arrived is None:
        return None
    date, field = _tenths(table, "by_date_s") or 0.0, _tenths(table, "by_age_field_s") or 0.0
    larger = f"the larger of Date {_digits(date)}, Age {_digits(field)}"
    here = _digits(round(age - arrived, 1))
    return f"{_long(age)} = {_digits(arrived)} s on arrival ({larger}) + {here} s here"


def _ttl(table: _Section) -> str | None:
    age, whole = _tenths(table, "age_s"), _tenths(table, "lifetime_s")
    if age is None or whole is None:
        return None
    early = _tenths(table, "ended_early_s") or 0.0
    lifetime, source = round(whole - early, 1), at(table, "source")
    if early:
        source = f"{source} {_digits(whole)} s, ended {_digits(early)} s early by a soft purge"
    left = _long(round(lifetime - age, 1))
    return f"{left} = lifetime {_digits(lifetime)} s ({source}) - age {_digits(age)} s"


def _tenths(table: _Section, name: str) -> float | None:
    value = _number(table, name)
    return None if value is None else round(value, 1)


def _digits(number: float) -> str:
    """A number with at most three decimals, and never as a power of ten."""
    # Adding 0.0 makes plain zero of minus zero.
    return f"{number + 0.0:.3f}".rstrip("0").removesuffix(".")


def _long(seconds: float) -> str:
    """Seconds, and where there are many, in a larger unit too."""
    words = span(seconds)
    return f"{_digits(seconds)} s" if words.endswith("s") else f"{_digits(seconds)} s ({words})"


def _covers(table: _Section, now: float | None) -> dict[str, Any]:
    covering = [
        f"{_covered(each, now)}" if isinstance(each, Mapping) else str(each)
        for each in _list(table, "covering")
    ]
    return {
        "covering": covering,
        **{name: table.get(name) or None for name in ("floor", "unnamed")},
        **_rest(table, "covering", "floor", "unnamed"),
    }


def _covered(each: _Section, now: float | None) -> str:
    """`purge 16 (hard): tag front; 2026-11-21T07:59:01Z (1 s ago), uid 0, pid 7`."""
    about = [_moment(each, "when", now), str(each.get("who") or "")]
    behind = ", ".join(part for part in about if part)
    line = f"purge {at(each, 'number')} ({at(each, 'manner')}): {at(each, 'scope')}"
    return f"{line}; {behind}" if behind else line


def _flight(table: _Section, _now: float | None) -> dict[str, Any]:
    aloft = _number(table, "aloft_s")
    return {
        "under way": None if aloft is None else f"for {aloft:.1f} s",
        **{name: "yes" for name in table if table[name] is True},
        **_rest(table, "aloft_s", *(name for name in table if isinstance(table[name], bool))),
    }


def _route(table: _Section, _now: float | None) -> dict[str, Any]:
    arms = [_arm(each) for each in _list(table, "arms") if isinstance(each, Mapping)]
    groups = [_group(each) for each in _list(table, "origins") if isinstance(each, Mapping)]
    names = ("goes", "arms", "place", "via", "origins", "conditions")
    return {
        "goes": _GOES.get(str(table.get("goes")), table.get("goes")),
        "arms": arms,
        "place": _whereabouts(_table(table, "place")),
        "via": _shield(_table(table, "via")),
        "origins": groups,
        **_rest(table, *names),
        "conditions": _rows(_table(table, "conditions")),
    }


_GOES: Final = {
    "alone": "for this client alone",
    "leads": "for all who ask for it",
    "joins": "with a fetch that is under way",
    "behind": "behind the answer",
}


def _arm(arm: _Section) -> str:
    """`checkout: new, by cookie; in the key`."""
    keyed = "in the key" if arm.get("keyed") is True else "not in the key"
    return f"{at(arm, 'experiment')}: {at(arm, 'arm')}, by {at(arm, 'by')}; {keyed}"


def _whereabouts(place: _Section) -> str:
    """`DE, DE-BE, EU, at 52.5, 13.4`."""
    named = [
        str(place[name]) for name in ("country", "subdivision", "continent") if place.get(name)
    ]
    where = [f"at {at(place, 'at')}"] if place.get("at") else []
    return ", ".join([*named, *where])


def _group(group: _Section) -> str:
    """`eu: http://a up, http://b ejected`."""
    servers = [each for each in _list(group, "servers") if isinstance(each, Mapping)]
    states = ", ".join(f"{at(each, 'server')} {at(each, 'state')}" for each in servers)
    return f"{at(group, 'name')}: {states or '-'}"


def _shield(via: _Section) -> list[str]:
    """Which shield is asked first, and what follows when none answers."""
    if not via:
        return []
    without = "the origins are asked" if via.get("without") == "origin" else "the request fails"
    return [_group(via), f"first {at(via, 'first')}; when none answers, {without}"]


_SECTIONS: Final[dict[str, Callable[[_Section, float | None], Any]]] = {
    "verdict": _verdict,
    "coding": _coding,
    "request": _request,
    "site": _site,
    "key": _key,
    "variant": _variant,
    "stored": _stored,
    "freshness": _freshness,
    "purges": _covers,
    "flight": _flight,
    "route": _route,
}
