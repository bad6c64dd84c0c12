"""The code keeps its own plan: import directions, file sizes, twin test files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("edge", "origin_shield")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SHIELDS = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == "origin_shield"]

IMPURE = {"trio", "socket", "ssl", "os", "time", "random", "logging", "diskcache", "sqlite3"}
PURE_PACKAGES = ("edge.wire", "edge.guard", "edge.routing", "edge.settings", "edge.config")
IMPURE_IN_CACHE = {
    "bodies", "bytesdisk", "descriptors", "disk", "diskbody", "estate", "files", "fill", "flight",
    "home", "inventory", "jobs", "journal", "lending", "loans", "pages", "pen", "presence",
    "reaper", "rows", "scan", "shards", "space", "spool", "store", "sweep", "threads", "trouble",
    "writer",
}  # fmt: skip
IMPURE_IN_CODING = {"coders"}
PURE_MODULES = {
    "edge.coded", "edge.errors", "edge.observe", "edge.metrics", "edge.reading", "edge.tally",
    "edge.exposition", "edge.answer", "edge.admission", "edge.branches", "edge.draft",
    "edge.merge", "edge.orders", "edge.owner", "edge.prospect", "edge.ready", "edge.shielding",
    "edge.standing", "edge.terms", "edge.trade", "edge.ways",
    "origin_shield.config", "origin_shield.edges",
}  # fmt: skip
EDGES_ALONE = ("edge.node", "edge.__main__")  # a shield can be read and run without them
NOT_A_SHIELDS = ("edge.guard.firewall", "edge.routing.geo", "edge.routing.experiment")

ALLOWED = {
    "edge.errors": set(),
    "edge.settings": set(),
    "edge.merge": set(),
    "edge.standing": set(),
    "edge.metrics": set(),
    "edge.reading": {"edge.metrics"},
    "edge.exposition": {"edge.metrics", "edge.reading"},
    "edge.tally": {"edge.metrics", "edge.reading"},
    "edge.observe": {"edge.metrics", "edge.reading", "edge.tally", "edge.errors"},
    "edge.wire": {"edge.errors"},
    "edge.guard": {"edge.wire", "edge.errors"},
    "edge.routing": {"edge.wire", "edge.errors"},
    "edge.cache": {"edge.wire", "edge.errors"},
    "edge.upstream": {"edge.wire", "edge.errors", "edge.routing"},
    "edge.coding": {
        "edge.wire", "edge.errors", "edge.routing.site", "edge.cache.body", "edge.cache.threads",
    },
    "edge.terms": {
        "edge.answer", "edge.cache", "edge.coding", "edge.guard", "edge.routing", "edge.wire",
    },
    "edge.listen": {"edge.wire", "edge.errors", "edge.upstream.transport"},
    "edge.config": {
        "edge.settings", "edge.guard", "edge.routing", "edge.cache", "edge.upstream",
        "edge.listen", "edge.coding", "edge.answer", "edge.standing", "edge.terms", "edge.wire",
        "edge.errors",
    },
}  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def is_ours(name: str) -> bool:
    return any(within(name, package) for package in PACKAGES)


def reached_from(path: Path) -> set[str]:
    """The modules of ours that importing `path` can come to import, whenever it does."""
    paths = {name_of(each): each for each in SOURCES}
    reached, left = {name_of(path)}, [path]
    while left:
        news = {name for name in imports_of(left.pop()) if name in paths} - reached
        reached |= news
        left += [paths[name] for name in news]
    return reached


def is_pure(path: Path) -> bool:
    """Whether a file is one of the house's `·` modules: no I/O, no clock, no Trio."""
    module = name_of(path)
    package, _, last = module.rpartition(".")
    if package == "edge.cache":
        return last not in IMPURE_IN_CACHE
    if package == "edge.coding":
        return last not in IMPURE_IN_CODING
    return module in PURE_MODULES or any(within(module, package) for package in PURE_PACKAGES)


PURE = [path for path in SOURCES if is_pure(path)]  # `tools/coverage` reads this


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_pure_modules_touch_no_clock_socket_or_disk(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports_of(path)} & IMPURE


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_only_where_the_plan_lets_them(path: Path) -> None:
    module = name_of(path)
    for owner, allowed in ALLOWED.items():
        if within(module, owner):
            ours = {name for name in imports_of(path) if is_ours(name) and name != "edge"}
            stray = {n for n in ours if not any(within(n, a) for a in {owner, *allowed})}
            assert not stray


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_product_imports_neither_tools_nor_tests_nor_asyncio(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports_of(path)} & {
        "tools", "tests", "asyncio", "pickle", "unittest",
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted({*SOURCES} - {*SHIELDS}), ids=name_of)
def test_an_edge_knows_nothing_of_shields(path: Path) -> None:
    assert not {name for name in imports_of(path) if within(name, "origin_shield")}


@pytest.mark.parametrize("path", SHIELDS, ids=name_of)
def test_a_shield_can_do_without_what_is_an_edges_alone(path: Path) -> None:
    assert not reached_from(path) & {*EDGES_ALONE}
    assert not {n for n in imports_of(path) if any(within(n, each) for each in NOT_A_SHIELDS)}


def test_what_is_reached_is_found_out() -> None:
    assert {"edge.node", "edge.admission"} <= reached_from(ROOT / "edge" / "__main__.py")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_holds_two_nouns(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 500


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_source_file_has_its_twin(path: Path) -> None:
    if path.name in ("__init__.py", "__main__.py"):
        return
    relative = path.relative_to(ROOT)
    if relative.parts[0] == "edge":
        relative = path.relative_to(ROOT / "edge")
    twin = ROOT / "tests" / "unit" / relative.parent / f"test_{relative.name}"
    assert twin.exists(), f"write {twin.relative_to(ROOT)}"
