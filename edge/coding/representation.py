"""The fields of a coded representation, and its entity tags, there and back.

Codings of one resource are representations of their own (RFC 9110 §8.8.3.3), so each has a tag of
its own: the origin's, and within its quotes `-`, the coding, `.` and a *mark*: `"v7"` becomes
`"v7-br.3f9a01c2"`. The mark tells apart what two encoders made of the same bytes: a strong tag
names octets, and a page that is compressed again, harder or merely after other flushes, has
others. So whoever codes gives a mark that no other coding of the same source has (`mark_of`
something that differs); a range of the one is then never joined to a range of the other. A weak
tag stays weak, and a tag that is not well-formed is left out: it cannot be told apart.

Which octets they are matters to ranges only. Who holds *any* coding of what is stored now need not
have it sent again: conditions are judged by the origin's own tags too (`renditions`). `-br` alone,
as others write it, is not taken for ours.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from edge.coding.negotiate import Coding
from edge.wire.fields import EntityTag, parse_entity_tag, tokens

if TYPE_CHECKING:
    from edge.wire.message import Headers

MARK_DIGITS: Final = 8
_SUFFIX: Final = re.compile(rb"-(br|zstd|gzip|dcz)\.([0-9a-f]{8})")

# Tells of the octets that are no longer sent. Repr-Digest too: it is over the coded
# representation (RFC 9530 §3), and so was Digest (RFC 3230).
OF_THE_OCTETS: Final = frozenset(
    b"content-length content-md5 content-digest repr-digest digest etag content-encoding".split()
)

_BY_CODING: Final = (b"Accept-Encoding",)
_BY_DICTIONARY: Final = (b"Accept-Encoding", b"Available-Dictionary")  # RFC 9842 §6.2


def mark_of(seed: bytes) -> bytes:
    """A mark for tags, from what no other coding of the same source shares: a random number, or
    the digest of the coded body where all of that is there."""
    return blake2b(seed, digest_size=MARK_DIGITS // 2, person=b"coding-mark").hexdigest().encode()


def coded_headers(headers: Headers, coding: Coding, mark: bytes) -> Headers:
    """The fields of a representation as they stand on its coded form; `mark` is `mark_of`'s.

    Content-Length is left out: whoever knows the coded length puts it there. ValueError for
    identity, which is no coding.
    """
    if coding is Coding.IDENTITY:
        raise ValueError("identity is not a coding to have fields of its own")
    tag = parse_entity_tag(headers.get(b"etag") or b"")
    out = headers.without(OF_THE_OCTETS).plus((b"content-encoding", coding.token))
    if tag is not None:
        out = out.plus((b"etag", coded_tag(tag, coding, mark).format()))
    return varied_headers(out, by_dictionary=coding is Coding.DCZ)


def varied_headers(headers: Headers, *, by_dictionary: bool = False) -> Headers:
    """The fields with a Vary that tells of the choice: for coded and uncoded forms alike.

    `by_dictionary`: a dictionary might have been used, had the client told of it.
    """
    said = headers.joined(b"vary")
    wanted = _BY_DICTIONARY if by_dictionary else _BY_CODING
    members = tokens(said or b"")
    have = {member.lower() for member in members}
    news = [name for name in wanted if name.lower() not in have]
    if not news or b"*" in have:
        return headers
    return headers.replaced(b"vary", b", ".join((*members, *news)))


def decoded_headers(headers: Headers) -> Headers:
    """The fields of an answer that the origin coded as they stand on its decoded form.

    Its tag becomes weak: the decoded octets are others than those that the origin named.
    """
    tag = parse_entity_tag(headers.get(b"etag") or b"")
    out = headers.without(OF_THE_OCTETS)
    if tag is not None:
        out = out.plus((b"etag", EntityTag(tag.opaque, weak=True).format()))
    return varied_headers(out)


def coded_tag(tag: EntityTag, coding: Coding, mark: bytes) -> EntityTag:
    """The tag of a coded form of what `tag` names; weak where that is weak."""
    return EntityTag(b"%b-%b.%b" % (tag.opaque, coding.token, mark), tag.weak)


def plain_tag(tag: EntityTag) -> tuple[EntityTag, Coding | None]:
    """The origin's tag behind one of ours, and the coding; (`tag`, None) for one that is not."""
    match = _SUFFIX.fullmatch(tag.opaque, max(0, tag.opaque.rfind(b"-")))
    if match is None:
        return tag, None
    return EntityTag(tag.opaque[: match.start()], tag.weak), Coding(match[1].decode("ascii"))
