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
IMPURE_IN = {
    "edge.cache": {
        "bodies", "bytesdisk", "descriptors", "disk", "diskbody", "estate", "files", "fill",
        "flight", "home", "inventory", "jobs", "journal", "lending", "loans", "pages", "pen",
        "presence", "reaper", "rows", "scan", "shards", "space", "spool", "store", "sweep",
        "threads", "trouble", "writer",
    },
    "edge.coding": {"bodies", "coders", "library", "shelf"},
    "edge.observe": {"accesslog", "errorlog", "scrape"},
}  # fmt: skip
PURE_MODULES = {
    "edge.errors", "edge.explain.prospect", "edge.hop.owner", "edge.process.trade",
    "edge.purging.draft", "edge.purging.orders", "edge.serving.admission", "edge.serving.answer",
    "edge.serving.branches", "edge.serving.ready", "edge.serving.shielding", "edge.serving.terms",
    "edge.serving.ways", "edge.surroundings.standing",
    "origin_shield.config", "origin_shield.edges",
}  # fmt: skip
EDGES_ALONE = ("edge.node", "edge.__main__")  # a shield can be read and run without them
NOT_A_SHIELDS = ("edge.guard.firewall", "edge.routing.geo", "edge.routing.experiment")

# What a package, or a module of it, may import besides itself. The longest name that fits counts.
ALLOWED = {
    "edge.errors": set(),
    "edge.settings": set(),
    "edge.wire": {"edge.errors"},
    "edge.guard": {"edge.wire", "edge.errors"},
    "edge.routing": {"edge.wire", "edge.errors"},
    "edge.cache": {"edge.wire", "edge.errors"},
    "edge.upstream": {"edge.wire", "edge.errors", "edge.routing"},
    "edge.coding": {
        "edge.wire", "edge.errors", "edge.routing.site", "edge.cache.body", "edge.cache.files",
        "edge.cache.threads",
    },
    "edge.coding.renditions": {"edge.wire", "edge.cache.entry", "edge.cache.held", "edge.coding"},
    "edge.listen": {"edge.wire", "edge.errors", "edge.upstream.transport"},
    "edge.observe": {"edge.errors"},
    "edge.observe.merge": set(),
    "edge.observe.metrics": set(),
    "edge.observe.reading": {"edge.observe.metrics"},
    "edge.observe.exposition": {"edge.observe.metrics", "edge.observe.reading"},
    "edge.observe.tally": {"edge.observe.metrics", "edge.observe.reading"},
    "edge.observe.record": {
        "edge.observe.metrics", "edge.observe.reading", "edge.observe.tally", "edge.errors",
    },
    "edge.observe.scrape": {"edge.observe", "edge.config", "edge.listen.tcp"},
    "edge.surroundings": {
        "edge.cache.home", "edge.config", "edge.observe.merge", "edge.routing", "edge.secret",
        "edge.upstream",
    },
    "edge.surroundings.standing": set(),
    "edge.config": {
        "edge.settings", "edge.guard", "edge.routing", "edge.cache", "edge.upstream",
        "edge.listen", "edge.coding", "edge.serving.answer", "edge.serving.terms",
        "edge.surroundings.standing", "edge.wire", "edge.errors",
    },
    "edge.serving": {
        "edge.cache", "edge.coding", "edge.errors", "edge.guard", "edge.hop.relay", "edge.listen",
        "edge.observe.record", "edge.purging", "edge.routing", "edge.upstream", "edge.wire",
    },
    "edge.serving.terms": {
        "edge.serving.answer", "edge.cache", "edge.coding", "edge.guard", "edge.routing",
        "edge.wire",
    },
    "edge.hop": {
        "edge.cache", "edge.coding", "edge.errors", "edge.listen", "edge.observe.record",
        "edge.serving", "edge.upstream", "edge.wire",
    },
    "edge.hop.owner": {"edge.cache.shards"},
    "edge.purging": {
        "edge.admin.desk", "edge.cache", "edge.errors", "edge.guard.address", "edge.routing.site",
        "edge.serving.shielding", "edge.serving.terms", "edge.upstream", "edge.wire",
    },
    "edge.explain": {
        "edge.cache", "edge.coding", "edge.errors", "edge.guard.address", "edge.listen",
        "edge.observe.record", "edge.purging.orders", "edge.routing", "edge.serving",
        "edge.upstream", "edge.wire",
    },
    "edge.admin": {
        "edge.cache", "edge.coding", "edge.errors", "edge.explain", "edge.listen", "edge.observe",
        "edge.process.leash", "edge.purging", "edge.routing", "edge.serving", "edge.surroundings",
    },
    "edge.command": {
        "edge.config", "edge.explain.question", "edge.process", "edge.purging.late",
        "edge.settings",
    },
}  # fmt: skip

# Who may import a package besides itself; all others do without it.
ONLY_FOR = {
    "edge.command": {"edge.__main__", "origin_shield.__main__"},
    "edge.process": {
        "edge.__main__", "edge.node", "edge.command.launch", "edge.admin.node",
        "origin_shield.__main__", "origin_shield.node",
    },
    "edge.admin": {"edge.process", "edge.purging.recorder"},
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
    if package in IMPURE_IN:
        return last not in IMPURE_IN[package]
    return module in PURE_MODULES or any(within(module, package) for package in PURE_PACKAGES)


PURE = [path for path in SOURCES if is_pure(path)]  # `tools/coverage` reads this


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_pure_modules_touch_no_clock_socket_or_disk(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports_of(path)} & IMPURE


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_only_where_the_plan_lets_them(path: Path) -> None:
    module = name_of(path)
    ours = {name for name in imports_of(path) if is_ours(name)} - {"edge", "edge.__version__"}
    owner = max((each for each in ALLOWED if within(module, each)), key=len, default=None)
    if owner is not None:
        own = {owner, *ALLOWED[owner]}
        assert not {n for n in ours if not any(within(n, each) for each in own)}
    for package, users in ONLY_FOR.items():
        if not any(within(module, each) for each in {package, *users}):
            assert not {n for n in ours if within(n, package)}


def test_every_rule_is_about_something() -> None:
    there = {name_of(path) for path in SOURCES}
    named = {*PURE_MODULES, *EDGES_ALONE, *ALLOWED, *ONLY_FOR, *PURE_PACKAGES}
    named |= {name for names in (*ALLOWED.values(), *ONLY_FOR.values()) for name in names}
    named |= {f"{package}.{last}" for package, lasts in IMPURE_IN.items() for last in lasts}
    assert not named - there


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
    assert {"edge.node", "edge.serving.admission"} <= reached_from(ROOT / "edge" / "__main__.py")


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
