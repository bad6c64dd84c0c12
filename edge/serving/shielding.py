"""How a request is dressed for a shield: as it goes to an origin, and with the edge's proof.

A shield keys and purges by what the visitor asked for, so it is asked for that: the site's own
host for the origin, a rewrite or an arm's prefix do not change the request line, but are claims.
The proof goes on last, over the request as it will be sent; each try has its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge.guard.address import UNIX
from edge.wire.proof import DEFAULT_PORTS, FIELD, MOST_HOPS, Claims, sign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.wire.hop import Forwarding
    from edge.wire.message import RequestHead


@dataclass(frozen=True, slots=True)
class Voice:
    """An edge as shields know it: its name, a token, and the secret that it signs with."""

    name: bytes
    secret: bytes = field(repr=False)


def claims_of(
    voice: Voice,
    forwarding: Forwarding,
    request_id: bytes,
    *,
    origins: Sequence[bytes] = (),
    key: bytes = b"",
    target: bytes | None = None,
) -> Claims:
    """What the edge says of a request that it passes on, beside what stands in the request.

    `origins` are names in the order of preference; `key` is what the edge keys by beside the URL;
    `target` what the origin is to be asked for, where that is not the request's.
    """
    has_port = forwarding.host.endswith(DEFAULT_PORTS)
    hops = (*forwarding.chain, forwarding.peer)[:MOST_HOPS]
    return Claims(
        edge=voice.name,
        id=request_id,
        hops=tuple(hop.partition(b"%")[0] or UNIX for hop in hops),
        scheme=forwarding.scheme,
        host=forwarding.host if has_port else None,
        origins=tuple(origins),
        key=key,
        target=target,
    )


def dress(head: RequestHead, claims: Claims, voice: Voice, now: float) -> RequestHead:
    """`head`, which `to_origin` has made, with the proof of what is claimed of it, at `now`.

    Raises ValueError for claims that no shield would take.
    """
    bare = head.headers.without((FIELD,))  # of an earlier try
    signed = replace(head, headers=bare)
    return replace(signed, headers=bare.plus((FIELD, sign(voice.secret, signed, claims, now))))
