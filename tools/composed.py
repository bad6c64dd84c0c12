"""What a compose file starts, as plain processes of this machine.

    python -m tools.composed compose/regions.yaml --into .demo --port fra1=8080 --port iad1=8081

Only addresses and directories differ: services listen on and are reached at 127.0.0.1, each at a
port of its own; mounted directories, the run directory and secrets are directories and files of
`--into`, and settings are written there. A line for each process is printed, in the order in which
they start: "once" for one that ends by itself before the next begins, or "run"; its name; its
address or "-"; and the words of its command, all with tabs between.

So `tools/run` shows what the compose files say, and a test keeps them true without containers.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = "127.0.0.1"
RUN = "/run/edge"  # made in the image
PROGRAMS = {
    "edge": (sys.executable, "-m", "edge"),
    "origin-shield": (sys.executable, "-m", "origin_shield"),
    "tools/origin": (sys.executable, "tools/origin"),
    "tools/geodata": (sys.executable, "tools/geodata"),
}


class ComposeError(ValueError):
    """A compose file that says what cannot be done here, in words."""


@dataclass(frozen=True)
class Service:
    """A service. `mounts` has paths of the host, or names of volumes, by their place inside."""

    name: str
    command: tuple[str, ...]
    mounts: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int | None:
        """Where it listens, if its command says so; else its settings do."""
        return _listens(" ".join(self.command))


@dataclass(frozen=True)
class Part:
    """One process: its command is to be run in the directory of the project."""

    name: str
    command: tuple[str, ...]
    address: str | None
    is_once: bool


def services(file: Path) -> dict[str, Service]:
    """The services of a compose file, those first that others need. Raises `ComposeError`."""
    told = yaml.safe_load(file.read_text())["services"]
    read = {name: _service(name, each) for name, each in told.items()}
    ordered: dict[str, Service] = {}

    def put(name: str, above: tuple[str, ...] = ()) -> None:
        if name in above:
            raise ComposeError(f"{file}: {' needs '.join((*above, name))}")
        if name not in read:
            raise ComposeError(f"{file}: {above[-1]} needs {name}, which is no service")
        for other in read[name].needs:
            put(other, (*above, name))
        ordered.setdefault(name, read[name])

    for name in read:
        put(name)
    return ordered


def _service(name: str, told: Mapping[str, Any]) -> Service:
    mounts = dict(reversed(each.split(":")[:2]) for each in told.get("volumes", ()))
    needs = told.get("depends_on", {})
    return Service(
        name=name,
        command=tuple(map(str, told["command"])),
        mounts=mounts,
        secrets=tuple(
            each if isinstance(each, str) else each["source"] for each in told.get("secrets", ())
        ),
        needs={other: how["condition"] for other, how in needs.items()},
    )


def parts(file: Path, into: Path, ports: Mapping[str, int]) -> list[Part]:
    """The processes of a compose file; writes their settings, and makes their directories, in
    `into`.

    `ports` say where services listen; for others a free one is chosen. Raises `ComposeError`.
    """
    known = services(file)
    unknown = sorted(set(ports) - set(known))
    if unknown:
        raise ComposeError(f"{file} has no service {unknown[0]}; it has {', '.join(known)}")
    listening = {
        name: (port, ports.get(name) or _free_port())
        for name, service in known.items()
        if (port := service.port or _listens(_settings(file, service))) is not None
    }
    once = {
        name
        for service in known.values()
        for name, how in service.needs.items()
        if how == "service_completed_successfully"
    }
    made = []
    for name, service in known.items():
        words = _Translation(file, service, into, listening)
        address = f"http://{HERE}:{listening[name][1]}" if name in listening else None
        made.append(Part(name, words.command(), address, name in once))
    return made


class _Translation:
    """From the words of a container to those of a process."""

    def __init__(
        self, file: Path, service: Service, into: Path, ports: Mapping[str, tuple[int, int]]
    ) -> None:
        self._service = service
        self._own = into / service.name
        self._own.mkdir(parents=True, exist_ok=True)
        self._places = {RUN: self._own}
        for place, source in service.mounts.items():
            if source.startswith("."):
                self._places[place] = self._own / Path(place).name
            else:
                self._places[place] = into / "volumes" / source
                self._places[place].mkdir(parents=True, exist_ok=True)
        for name in service.secrets:
            self._places[f"/run/secrets/{name}"] = _secret(into / "secrets" / name)
        self._new = {place: str(path) for place, path in self._places.items()}
        for name, (inside, outside) in ports.items():
            self._new[f"http://{name}:{inside}"] = f"http://{HERE}:{outside}"
            if name == service.name:
                self._new[f"0.0.0.0:{inside}"] = f"{HERE}:{outside}"
        longest_first = sorted(self._new, key=len, reverse=True)
        self._old = re.compile(rf"(?:{'|'.join(map(re.escape, longest_first))})(?![\w.-])")
        for place, path in _files(file, service):
            self._places[place].write_text(self.text(path.read_text()))

    def command(self) -> tuple[str, ...]:
        program, *words = self._service.command
        if program not in PROGRAMS:
            raise ComposeError(f"{self._service.name}: {program} is not one of {[*PROGRAMS]}")
        return (*PROGRAMS[program], *map(self.text, words))

    def text(self, text: str) -> str:
        """`text` with every address and directory changed."""
        return self._old.sub(lambda found: self._new[found[0]], text)


def _files(file: Path, service: Service) -> Iterator[tuple[str, Path]]:
    """The mounted files: where, and what."""
    for place, source in service.mounts.items():
        if source.startswith("."):
            path = file.parent / source
            if not path.is_file():
                raise ComposeError(f"{service.name} mounts {path}, which is not there")
            yield place, path


def _settings(file: Path, service: Service) -> str:
    return "\n".join(path.read_text() for _, path in _files(file, service))


def _listens(text: str) -> int | None:
    found = re.search(r"\b0\.0\.0\.0:(\d+)", text)
    return int(found[1]) if found else None


def _secret(path: Path) -> Path:
    """A secret for this run, which nobody else may read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(f"{secrets.token_hex(32)}\n")
    return path


def _free_port() -> int:
    with socket.create_server((HERE, 0)) as listener:
        return int(listener.getsockname()[1])


def taken(ports: Mapping[str, int]) -> list[str]:
    """What of these ports is in use, one line each."""
    words, owners = [], dict[int, str]()
    for name, port in ports.items():
        if owners.setdefault(port, name) != name:
            words.append(f"{name} and {owners[port]} cannot both have port {port}")
            continue
        if not 0 < port < 65_536:
            words.append(f"{name} cannot listen on port {port}: they are from 1 to 65535")
            continue
        try:
            socket.create_server((HERE, port)).close()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            words.append(f"{name} cannot listen on {HERE}:{port}: {reason}")
    return words


def main(arguments: Sequence[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("file", type=Path)
    parser.add_argument("--into", type=Path, required=True, metavar="DIRECTORY")
    parser.add_argument("--port", action="append", default=[], metavar="SERVICE=PORT")
    args = parser.parse_args(arguments)
    try:
        ports = {name: int(port) for name, port in (each.split("=", 1) for each in args.port)}
    except ValueError:
        parser.error("--port is SERVICE=PORT, like fra1=8080")
    if faults := taken(ports):
        sys.exit("\n".join(faults))
    try:
        made = parts(args.file, args.into, ports)
    except (ComposeError, OSError) as error:
        sys.exit(str(error))
    for part in made:
        how = "once" if part.is_once else "run"
        print("\t".join((how, part.name, part.address or "-", *part.command)))


if __name__ == "__main__":
    main()
