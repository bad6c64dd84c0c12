"""Each reason for which a dictionary that a request names is not used, and that one is."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from edge.coding.dictionary import Realm
from edge.coding.library import Library
from edge.coding.policy import CompressPolicy
from edge.coding.shelf import Shelf
from edge.explain.dictionary import Unused, named
from tests.unit.coding.test_renditions import request
from tests.unit.coding.test_shelf import OFFER, made
from tests.unit.coding.texts import available_field

if TYPE_CHECKING:
    from pathlib import Path

    from edge.explain.dictionary import Named
    from edge.explain.particulars import Case

BODY: Final = made().content
DIGEST: Final = made().digest
SHORT: Final = DIGEST.hex()[:12]
ASKED: Final = request(b"br, dcz")
REALM: Final = Realm("site", b"%b://%b" % (ASKED.scheme, ASKED.authority))
OF_ORIGIN: Final = '("v1", for /app.*.js)'


async def asked(
    library: Library,
    *,
    value: bytes = available_field(DIGEST),
    accepts: bytes = b"br, dcz",
    target: bytes = b"/app.v2.js",
    place: bytes = b"script",
    policy: CompressPolicy | None = CompressPolicy(dictionaries=True),  # noqa: B008 - frozen
    goes: str = "",
) -> Named | None:
    fields = [(b"available-dictionary", value)] if value else []
    head = replace(request(accepts, *fields, (b"sec-fetch-dest", place)), target=target)
    admitted = SimpleNamespace(
        request=head, site=SimpleNamespace(name="site"), terms=SimpleNamespace(compress=policy)
    )
    tools = SimpleNamespace(library=library)
    return await named(
        cast("Case", SimpleNamespace(head=head, admitted=admitted, tools=tools)), goes
    )


async def knowing(realm: Realm = REALM) -> Library:
    library = Library()
    await library.learn(realm, BODY, OFFER)
    return library


async def test_one_that_is_used_is_told_of_as_its_origin_named_it() -> None:
    told = await asked(await knowing())
    assert told is not None
    assert told.used is not None
    assert (told.used.content, told.by, told.why) == (BODY, DIGEST, None)
    assert told.says == f"dictionary {SHORT} {OF_ORIGIN}"
    assert told.document() == {
        "digest": sha256(BODY).hexdigest(), "id": "v1", "match": "/app.*.js", "why": None,
    }  # fmt: skip


async def test_one_without_an_id_has_none() -> None:
    library = Library()
    await library.learn(REALM, BODY, replace(OFFER, id=b""))
    told = await asked(library)
    assert told is not None
    assert told.says == f"dictionary {SHORT} (for /app.*.js)"
    assert told.document()["id"] is None


async def test_one_that_another_worker_has_learned_is_found(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    await Library(shelf).learn(REALM, BODY, OFFER)
    told = await asked(Library(shelf))
    assert told is not None
    assert told.by == DIGEST


@pytest.mark.parametrize(
    ("how", "why", "words"),
    [
        ({"policy": CompressPolicy(dictionaries=False)}, "off",
         "the site has no dictionaries (compress.dictionaries)"),
        ({"value": b"junk"}, "unread", "Available-Dictionary names no SHA-256"),
        ({"accepts": b"br, *"}, "unaccepted", "the client does not accept it"),
        ({"goes": "alone"}, "alone", "what is one client's alone is coded with no dictionary"),
        ({"value": available_field(bytes(32))}, "unknown", "no dictionary 000000000000 is known"),
        ({"target": b"/other"}, "match", f"dictionary {SHORT} {OF_ORIGIN} is not for this URL"),
        ({"place": b"document"}, "destination",
         f"dictionary {SHORT} is for script, worker alone (Sec-Fetch-Dest)"),
    ],
)  # fmt: skip
async def test_why_one_is_not_used(how: dict[str, Any], why: str, words: str) -> None:
    told = await asked(await knowing(), **how)
    assert told is not None
    assert (told.why, told.says) == (Unused(why), f"not dcz: {words}")
    assert (told.used, told.by, told.document()["why"]) == (None, b"", why)


@pytest.mark.parametrize(
    "realm", [Realm("other", REALM.origin), Realm("site", b"https://elsewhere.example")]
)
async def test_another_origins_is_not_told_of(realm: Realm) -> None:
    told = await asked(await knowing(realm))
    assert told is not None
    assert (told.why, told.found) == (Unused.ELSEWHERE, None)
    assert told.says == f"not dcz: dictionary {SHORT} is another site's or origin's"


async def test_who_names_none_is_told_of_none() -> None:
    library = await knowing()
    assert await asked(library, value=b"") is None
    assert await asked(library, policy=None) is None
