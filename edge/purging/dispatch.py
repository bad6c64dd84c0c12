"""An order as a JSON document, for shields: what `orders.order_from_json` reads as the same.

URLs are told as they are keyed here. A shield that keys by other rules applies them to that, as it
does to a request of this edge. A name that JSON cannot tell (a tag that is not UTF-8) becomes the
host that the order is confined to, or everything: too much, and never too little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from edge.purging.draft import Order

_KINDS: Final = {b"u": "url", b"p": "prefix", b"h": "host", b"t": "tag", b"T": "tag"}
_LOCATED: Final = ("url", "prefix")


def document(order: Order, host: bytes | None) -> bytes:
    """The document of an order that is confined to `host`, if that is given."""
    told: dict[str, Any] = {"soft": True} if order.soft else {}
    if host is not None:
        told["on"] = host.decode("ascii")
    try:
        names = _names(order)
    except UnicodeDecodeError:
        names = {"all": True} if host is None else {"host": [host.decode("ascii")]}
    return msgspec.json.encode(told | names)


def _names(order: Order) -> dict[str, Any]:
    if order.everything:
        return {"all": True}
    names: dict[str, Any] = {}
    for name in order.names:
        kind, what = _KINDS[name[:1]], name[1:]
        if name[:1] == b"T":
            what = what.partition(b"\0")[2]
        text = what.decode("utf-8")
        names.setdefault(kind, []).append(f"http://{text}" if kind in _LOCATED else text)
    return names
