"""Where each setting stands: the line of every key path of a TOML text.

`tomllib` tells values but not their places, so the text is scanned once more here, by a grammar
that knows only what a place needs: headers, keys, strings, comments and brackets. It is meant for
text that `tomllib` has accepted; on any other it gives some lines and never fails. Known limit:
an escape inside a quoted key is not decoded, so such a key has the line of the table around it.
"""

from __future__ import annotations

import re
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_DEPTH = 16  # no setting stands deeper; what does has the line of what is around it

_TOKEN = re.compile(
    r"""(?P<newline>\n)
      | (?P<blank>[ \t\r]+)
      | (?P<comment>\#[^\n]*)
      | (?P<string>\"{3}(?:[^\\]|\\.)*?\"{3,5}(?!\")|'{3}.*?'{3,5}(?!')
                  |"(?:[^"\\\n]|\\[^\n])*"|'[^'\n]*')
      | (?P<mark>[\[\]{}=,.])
      | (?P<bare>[^\s\[\]{}=,.#"']+)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


class _Frame:
    """An open bracket: an array with its next index, or an inline table with the key in hand."""

    __slots__ = ("array", "index", "key", "path", "reading_key")

    def __init__(self, path: Path, *, array: bool) -> None:
        self.path = path[:_DEPTH]
        self.array = array
        self.index = 0
        self.key: list[str] = []
        self.reading_key = not array


class _Scan:
    """One pass over a text: the lines found so far, and where in the grammar it is."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}  # arrays of tables: index of the last
        self.table: Path = ()
        self.key: list[str] = []
        self.header = 0  # brackets open in a header: 0, 1 or 2
        self.value = False  # behind a `=` outside brackets
        self.frames: list[_Frame] = []
        self.fresh_line = True

    def note(self, path: Path, line: int) -> None:
        for length in range(1, min(len(path), _DEPTH) + 1):
            self.lines.setdefault(path[:length], line)

    def resolved(self, key: list[str]) -> Path:
        """A header's key with the index of the last table in every array on the way."""
        path: Path = ()
        for part in key[:_DEPTH]:
            path = (*path, part)
            if path in self.arrays:
                path = (*path, self.arrays[path])
        return path

    def end_of_line(self, line: int) -> None:
        if self.header and self.key:
            self._close_header(line)
        if not self.frames:
            self.header, self.value, self.key, self.fresh_line = 0, False, [], True

    def _close_header(self, line: int) -> None:
        path = self.resolved(self.key)
        if self.header == 2:
            plain: Path = (*self.resolved(self.key[:-1]), self.key[-1])
            self.arrays[plain] = self.arrays.get(plain, -1) + 1
            path = (*plain, self.arrays[plain])
        self.table = path
        self.note(path, line)
        self.header, self.key = 0, []

    def word(self, text: str, line: int) -> None:
        self.fresh_line = False
        if self.frames:
            self._inside_word(self.frames[-1], text, line)
        elif not self.value:
            self.key.append(text)

    def _inside_word(self, frame: _Frame, text: str, line: int) -> None:
        if frame.array:
            self.note((*frame.path, frame.index), line)
        elif frame.reading_key:
            frame.key.append(text)

    def mark(self, text: str, line: int) -> None:
        if self.frames:
            self._inside_mark(self.frames[-1], text, line)
        elif self.value:
            self._open(text, self.table + tuple(self.key))
        elif text == "=":
            self.value = True
            self.note(self.table + tuple(self.key), line)
        elif text == "[" and (self.fresh_line or self.header == 1):
            self.header += 1
        self.fresh_line = False

    def _open(self, text: str, path: Path) -> None:
        if text in "[{":
            self.frames.append(_Frame(path, array=text == "["))

    def _inside_mark(self, frame: _Frame, text: str, line: int) -> None:
        if text in "]}":
            self.frames.pop()
        elif text == ",":
            frame.index += 1
            frame.key, frame.reading_key = [], not frame.array
        elif text == "=" and frame.reading_key:
            frame.reading_key = False
            self.note((*frame.path, *frame.key), line)
        elif text in "[{" and not frame.reading_key:
            inner = (frame.index,) if frame.array else tuple(frame.key)
            self.note((*frame.path, *inner), line)
            self._open(text, (*frame.path, *inner))


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, on which each key path first stands: `("site", 2, "cache", "ttl")`."""
    scan = _Scan()
    line = 1
    for token in _TOKEN.finditer(text):
        piece, kind = token[0], token.lastgroup
        if kind == "newline":
            scan.end_of_line(line)
        elif kind == "mark":
            scan.mark(piece, line)
        elif kind == "bare":
            scan.word(piece, line)
        elif kind == "string":
            scan.word(piece[1:-1], line)
        line += piece.count("\n")
    scan.end_of_line(line)
    return scan.lines


def line_of(path: Path, lines: dict[Path, int]) -> int | None:
    """The line of `path`, else of the nearest table around it; None where nothing is known."""
    for length in range(min(len(path), 2 * _DEPTH), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None
