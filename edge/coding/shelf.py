"""The dictionaries that any worker of a node has learned, for all of them: files, and their marks.

The URLs that a dictionary is for may have other owners than the one that it came from. So whoever
learns one also puts it here, and whoever is named one that it does not have at hand finds it here.

- *A file* is named by its realm and its digest, and has a short head (what the offer says), with a
  checksum that covers the name too, and then the content, which has to have that digest. What has
  been cut short, changed or renamed is no dictionary, and raises nothing. A file is written under
  another name and renamed, so no one reads half of one. There is no realm to be had from it but
  the one that is asked for.
- *Marks.* Memory that all processes of the node share says which files there are. So a digest that
  nobody has learned costs a hash and a look at eight numbers (3 µs, where the `open` of a file
  that is not there took 13), and leaves nothing behind, however many a client thinks up. A mark
  may be wrong: whoever finds no file takes the mark away. Two who write at the same moment may
  lose one, and a file without a mark is not found: that costs its use, until it is learned anew.
- *Bounded* as a worker's own `Dictionaries` are, in number, in bytes and of one realm: whoever
  puts one here removes the oldest of what is too much then.
- *As old as the node.* A process that comes in place of another finds all. A node that starts
  finds nothing: it removes what there was, since what it has stored is learned anew when it is
  answered with.
- *Purges* forget no dictionary. Nothing of one is ever sent, and it is used only for who says what
  digest it has: most are needed just when what they were made of has been purged, for what comes
  next. Whoever wants the bytes gone starts the node anew.

All but `has` blocks, for milliseconds or as long as a disk takes: it is for a thread.
"""

from __future__ import annotations

import mmap
import os
import secrets
import shutil
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from edge.cache.files import unlink, write_file
from edge.coding.dictionary import (
    LEAST_BYTES,
    MOST,
    MOST_BYTES,
    MOST_REALM,
    Dictionary,
    Offer,
    url_match,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge.coding.dictionary import Realm

FOLDER: Final = "dictionaries"
MAGIC: Final = b"DICT\x01"  # the last byte is the version
CHECK_BYTES: Final = 16
BUCKETS: Final = 512
WAYS: Final = 8  # marks of a bucket: 256 in 512 buckets do not fill one
_REALM_BYTES: Final = 16
_LENGTH_BYTES: Final = 4
_PREFIX_BYTES: Final = len(MAGIC) + CHECK_BYTES + _LENGTH_BYTES


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """What is told of a dictionary beside its content."""

    pattern: bytes
    id: bytes
    match_dest: tuple[bytes, ...]


def packed(realm: Realm, made: Dictionary) -> bytes:
    """The byte form of a dictionary of this realm."""
    offer = made.offer
    told = _Head(offer.match.pattern, offer.id, tuple(sorted(offer.match_dest)))
    head = _ENCODER.encode(told)
    length = len(head).to_bytes(_LENGTH_BYTES, "big")
    return b"".join((MAGIC, _check(_name(realm, made.digest), head), length, head, made.content))


def unpacked(data: bytes, realm: Realm, digest: bytes) -> Dictionary | None:
    """The dictionary of this realm and digest that `data` is the byte form of; None where it is
    not."""
    content_at = _PREFIX_BYTES + int.from_bytes(
        data[len(MAGIC) + CHECK_BYTES : _PREFIX_BYTES], "big"
    )
    head, content = data[_PREFIX_BYTES:content_at], data[content_at:]
    if data[: len(MAGIC) + CHECK_BYTES] != MAGIC + _check(_name(realm, digest), head):
        return None
    try:
        told = _DECODER.decode(head)
    except msgspec.MsgspecError:
        return None
    match = url_match(told.pattern, b"/")
    if match is None or len(content) < LEAST_BYTES:
        return None
    made = Dictionary(content, Offer(match, told.id, frozenset(told.match_dest)))
    return made if made.digest == digest else None


class Shelf:
    """To be made before processes are forked; making one removes what the directory had in it."""

    def __init__(
        self,
        directory: Path,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        most_realm: int = MOST_REALM,
    ) -> None:
        self._directory = directory
        self._most = most
        self._most_bytes = most_bytes
        self._most_realm = most_realm
        self._marks = memoryview(mmap.mmap(-1, BUCKETS * WAYS * 8)).cast("Q")
        shutil.rmtree(directory, ignore_errors=True)  # what stays has no mark, and is replaced

    def has(self, realm: Realm, digest: bytes) -> bool:
        """Whether there should be a dictionary of this realm and digest."""
        return self._place_of(_mark(_name(realm, digest))) is not None

    def read(self, realm: Realm, digest: bytes) -> Dictionary | None:
        """The one of this realm and digest; None for none, or a file that cannot be one.

        Raises OSError.
        """
        try:
            with (self._directory / _name(realm, digest)).open("rb") as file:
                data = file.read(self._most_bytes)
        except FileNotFoundError:
            return None
        return unpacked(data, realm, digest)

    def put(self, realm: Realm, made: Dictionary) -> None:
        """Have a dictionary found by all; raises OSError, and then it is not."""
        name = _name(realm, made.digest)
        path = self._directory / name
        fresh = f"{path}.{secrets.token_hex(8)}"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        try:
            write_file(fresh, packed(realm, made))
            os.rename(fresh, path)
        except OSError:
            unlink(fresh)
            raise
        self._set(_mark(name))
        self._tidy(name)

    def forget(self, realm: Realm, digest: bytes) -> None:
        """Have nobody look for this one any more: it was not found, or cannot be read."""
        self._unset(_mark(_name(realm, digest)))

    def has_elsewhere(self, digest: bytes) -> bool:
        """Whether any realm has a dictionary of this digest; raises OSError."""
        return any(file.name.endswith(f"-{digest.hex()}") for file in self._files())

    def _tidy(self, latest: str) -> None:
        """Remove the oldest of what is too much now that `latest` has come: that itself last,
        wherever the clock has been set.

        What a process has left behind that was killed as it wrote counts as well, and goes so.
        """
        realm = latest[: 2 * _REALM_BYTES]
        files = sorted(self._files(), key=lambda file: (file.name == latest, file.written_ns))
        over = len(files) - self._most
        over_bytes = sum(file.size for file in files) - self._most_bytes
        over_realm = sum(file.name.startswith(realm) for file in files) - self._most_realm
        for file in files:
            is_of_realm = file.name.startswith(realm)
            if over <= 0 and over_bytes <= 0 and not (is_of_realm and over_realm > 0):
                continue
            unlink(self._directory / file.name)
            self._unset(_mark(file.name))
            over, over_bytes = over - 1, over_bytes - file.size
            over_realm -= is_of_realm

    def _files(self) -> Iterator[_File]:
        try:
            entries = list(os.scandir(self._directory))
        except FileNotFoundError:  # nothing was learned yet
            return
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # another process has removed it
                continue
            yield _File(entry.name, found.st_size, found.st_mtime_ns)

    # Marks: each in its bucket, where it is sought in all places.

    def _place_of(self, mark: int) -> int | None:
        first = mark % BUCKETS * WAYS
        bucket = self._marks[first : first + WAYS].tolist()
        return first + bucket.index(mark) if mark in bucket else None

    def _set(self, mark: int) -> None:
        if self._place_of(mark) is None:
            first = mark % BUCKETS * WAYS
            bucket = self._marks[first : first + WAYS].tolist()
            self._marks[first + (bucket.index(0) if 0 in bucket else 0)] = mark

    def _unset(self, mark: int) -> None:
        place = self._place_of(mark)
        if place is not None:
            self._marks[place] = 0


class _File(NamedTuple):
    name: str
    size: int
    written_ns: int


def _name(realm: Realm, digest: bytes) -> str:
    whole = b"%b\0%b" % (realm.site.encode(), realm.origin)
    return f"{blake2b(whole, digest_size=_REALM_BYTES).hexdigest()}-{digest.hex()}"


def _mark(name: str) -> int:
    """Of eight bytes, so that it is written as one; 0 is for none."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") or 1


def _check(name: str, head: bytes) -> bytes:
    return blake2b(name.encode() + head, digest_size=CHECK_BYTES).digest()


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Head)
