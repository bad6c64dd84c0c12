from __future__ import annotations

# The schema's hints are read at run time.
from collections.abc import Iterator, Mapping  # noqa: TC003
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from edge.settings import Complaint, SettingsError, assign, load, parse, setting
from edge.settings.kinds import DURATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    ttl: float | None = field(default=None, metadata=setting("Time.", DURATION, most=60.0))
    tags: tuple[str, ...] = field(default=(), metadata=setting("Tags.", most_members=2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    unbuilt: ClassVar[Mapping[str, str]] = {"geo": "not yet"}

    name: str = field(metadata=setting("Its name."))
    terms: Terms = field(default_factory=Terms, metadata=setting("Terms.", inherits=True))

    def check(self) -> Iterator[Complaint]:
        if self.name == "bad":
            yield Complaint(("name",), self.name, "is bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    terms: Terms = field(default_factory=Terms, metadata=setting("Terms.", inherits=True))
    sites: tuple[Site, ...] = field(default=(), metadata=setting("Sites.", key="site"))
    words: Mapping[str, str] = field(
        default_factory=dict, metadata=setting("Words.", most_members=2)
    )


def faults(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(Root, text)
    return [fault.at("f") for fault in caught.value.faults]


def test_an_inner_table_takes_what_it_does_not_set_from_the_outer_one() -> None:
    root = load(Root, 'terms.ttl = "5s"\n[[site]]\nname = "a"\nterms.tags = ["x"]')
    assert root.sites[0].terms == Terms(ttl=5.0, tags=("x",))


def test_none_takes_an_inherited_value_back() -> None:
    root = load(Root, 'terms.ttl = "5s"\n[[site]]\nname = "a"\nterms.ttl = "none"')
    assert root.sites[0].terms.ttl is None


def test_the_default_holds_where_nothing_is_said() -> None:
    assert load(Root, "") == Root()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[site]]", "f:1: sites[0].name: missing; its name"),
        ("site = 1", "f:1: sites: 1 is not a list; write [[site]]"),
        ("site = [1]", "f:1: sites[0]: 1 is not a table; write { … }"),
        ("words = 1", "f:1: words: 1 is not a table; write words = { … }"),
        (
            "words = { 'a b' = 'x' }",
            'f:1: words."a b": is not a name; use letters, digits, - and _',
        ),
        ("words = { a='', b='x', c='x' }", "f:1: words: 3 are too many; at most 2"),
        ("terms = { tags = 5 }", "f:1: terms.tags: 5 is not a list; put it between [ and ]"),
        ('\n[terms]\nttl = "2m"', 'f:3: terms.ttl: "2m" is too much; at most "1m"'),
        ('[[site]]\nname = "bad"', 'f:2: sites[0].name: "bad" is bad'),
        ('[[site]]\nname = "a"\ngeo = 1', "f:3: sites[0].geo: unknown setting; not yet"),
        ("trems = 1", 'f:1: trems: unknown setting; did you mean "terms"?'),
        ("x = 1", "f:1: x: unknown setting; known here: site, terms, words"),
        ("a = \n", "f:1: this is not TOML: invalid value"),
        ("a = [\n", "f:1: this is not TOML: invalid value"),
    ],
)
def test_a_fault_names_line_path_value_and_way_out(text: str, told: str) -> None:
    assert told in faults(text)


def test_a_long_value_is_shortened() -> None:
    (told,) = faults(f'terms.ttl = "{"x" * 500}"')
    assert len(told) < 130


def test_a_value_that_cannot_be_written_down_is_left_out() -> None:
    huge = "0x" + "f" * 5_000
    assert faults(f"words = {huge}") == ["f:1: words: … is not a table; write words = { … }"]


def test_faults_come_in_the_order_of_the_file_and_not_without_end() -> None:
    told = faults("\n".join(f"k{n} = 1" for n in range(500)))
    assert len(told) == 100
    assert told[0].startswith("f:1: k0: ")


def assigned(key: str, text: str, table: dict[str, Any]) -> dict[str, Any]:
    assign(table, key, text)
    return table


def test_an_assignment_makes_its_way_through_tables_and_lists() -> None:
    assert assigned("a.b", "1", {}) == {"a": {"b": 1}}
    assert assigned("s.x", "bare text", {"s": [{}]}) == {"s": [{"x": "bare text"}]}
    assert assigned("s.1.x", "true", {"s": [{}, {}]}) == {"s": [{}, {"x": True}]}
    assert assigned("a", "1\nb = 2", {}) == {"a": "1\nb = 2"}


@pytest.mark.parametrize("key", ["s.x", "s.7.x", "", "a.", "v.x", "v.x.y"])
def test_an_assignment_to_nothing_is_told(key: str) -> None:
    with pytest.raises(SettingsError):
        assign({"s": [{}, {}], "v": 1}, key, "1")


def test_a_text_that_is_not_toml_is_told_with_its_line() -> None:
    with pytest.raises(SettingsError) as caught:
        parse("a = 1\nb = = 2\n")
    assert caught.value.faults[0].line == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1\nb = " + "9" * 5_000, "f:2: a number has too many digits"),
        ("a = " + "[" * 100_000, "f: brackets are nested too deeply"),
    ],
)
def test_a_text_that_no_parser_takes_is_told_as_a_fault(text: str, told: str) -> None:
    assert faults(text) == [told]


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Tables in lists in tables by name, and who finds fault with all of them."""

    roots: Mapping[str, Root] = field(default_factory=dict, metadata=setting("Roots.", key="root"))
    at: tuple[str, ...] = field(default=(), metadata=setting("Where."))

    def check(self) -> Iterator[Complaint]:
        for name in self.roots:
            below = ("root", name)
            yield Complaint((*below, "site", 0, "terms", "tags", 1), "x", "is bad")
            yield Complaint((*below, "words", "site"), None, "is a word")
            yield Complaint((*below, "nothing", "site"), None, "is nowhere")


def test_a_fault_between_settings_stands_under_the_names_that_other_faults_do() -> None:
    text = 'at = []\n[root.site]\nwords = { site = "b" }\n[[root.site.site]]\nname = "a"'
    with pytest.raises(SettingsError) as caught:
        load(House, text)
    assert [fault.at("f") for fault in caught.value.faults] == [
        "f:2: root.site.nothing.site: is nowhere",
        "f:3: root.site.words.site: is a word",
        'f:4: root.site.sites[0].terms.tags[1]: "x" is bad',
    ]
