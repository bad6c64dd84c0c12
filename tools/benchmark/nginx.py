"""nginx, as a caching proxy beside this node and as the origin of both.

It gets the settings that someone who knows it would give it (keep-alive to the origin, open files
cached, sendfile, a buffered access log, no limit on requests of a connection): what is compared is
the servers and not their defaults.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tools.benchmark.objects import FILES, LIFETIME_S, MODIFIED, SMALL
from tools.benchmark.servers import Server, await_port, free_port, pinned
from tools.benchmark.texts import TEXTS

CONNECTIONS: Final = 16_384

_CACHE: Final = """\
  log_format json escape=json '{"time":"$time_iso8601","id":"$request_id",'
    '"client":"$remote_addr","method":"$request_method","host":"$host",'
    '"target":"$request_uri","status":$status,"bytes":$body_bytes_sent,'
    '"cache":"$upstream_cache_status","upstream":"$upstream_addr",'
    '"total_s":$request_time,"upstream_s":"$upstream_response_time"}';
  access_log DIRECTORY/access.log json buffer=64k flush=1s;
  open_file_cache max=10000 inactive=60s;
  proxy_cache_path DIRECTORY/cache levels=1:2 keys_zone=c:64m max_size=20g
    inactive=1h use_temp_path=off;
  upstream origin { server ORIGIN; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:PORT backlog=4096;
    location / {
      proxy_pass http://origin; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_cache c; proxy_cache_lock on;
      add_header Cache-Status $upstream_cache_status;
    }
  }
"""
_ORIGIN: Final = """\
  access_log off;
  open_file_cache max=1000 inactive=1h;
  server {
    listen 127.0.0.1:PORT backlog=4096;
    default_type application/octet-stream;
    add_header Cache-Control "max-age=LIFETIME";
    location = /requests { stub_status; }
    location /files/ { alias DIRECTORY/files/; }
    location ~ ^/mixed/([0-9]+)/ { alias DIRECTORY/files/$1; }
    location ~ ^/text/([0-9a-z]+)/ { default_type text/plain; alias DIRECTORY/texts/$1; }
    location / { return 200 "SMALL"; }
  }
"""


_GZIP: Final = """\
  gzip on; gzip_comp_level 6; gzip_types text/plain; gzip_proxied any; gzip_vary on;
"""
_BROTLI: Final = "  brotli on; brotli_types text/plain;\n"  # at 6, its default
BROTLI_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_http_brotli_filter_module.so")


def _start(
    path: str, directory: Path, core: int, port: int, http: str, name: str, modules: str = ""
) -> Server:
    directory.mkdir(parents=True, exist_ok=True)
    user = "user root;\n" if os.geteuid() == 0 else ""
    folders = "".join(
        f"  {kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    settings = (
        f"{modules}{user}daemon off;\nworker_processes 1;\npid {directory}/pid;\n"
        f"events {{ worker_connections {CONNECTIONS}; }}\n"
        f"http {{\n{folders}"
        "  sendfile on; tcp_nopush on; tcp_nodelay on;\n"
        "  keepalive_requests 1000000000; keepalive_timeout 600;\n"
        f"{http}}}\n"
    )
    (directory / "nginx.conf").write_text(settings)
    log = directory / "error.log"
    command = [*pinned(core), path, "-p", str(directory), "-e", str(log), "-c", "nginx.conf"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
    server = Server(name, port, process, log)
    await_port(server)
    return server


def start_nginx_cache(
    path: str, directory: Path, origin: str, *, core: int = 0, codes: bool = False
) -> Server:
    """nginx as a caching proxy of `origin`; ready.

    `codes`: with gzip at level 6, and with brotli where Debian's module is installed.
    """
    port, modules, coding = free_port(), "", ""
    if codes and BROTLI_MODULE.exists():
        modules, coding = f"load_module {BROTLI_MODULE};\n", _BROTLI
    if codes:
        coding += _GZIP
    http = coding + (
        _CACHE.replace("DIRECTORY", str(directory))
        .replace("ORIGIN", origin.removeprefix("http://"))
        .replace("PORT", str(port))
    )
    return _start(path, directory, core, port, http, "nginx", modules)


def start_nginx_origin(path: str, directory: Path, *, core: int = 1) -> Server:
    """nginx as an origin: `FILES`, at other targets 1 KiB, its requests counted. Ready."""
    port, files = free_port(), directory / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name, body in FILES.items():
        (files / name).write_bytes(body)
        os.utime(files / name, (MODIFIED, MODIFIED))  # the validator is made of it
    texts = directory / "texts"
    texts.mkdir(exist_ok=True)
    for name, body in TEXTS.items():
        (texts / name).write_bytes(body)
    http = (
        _ORIGIN.replace("DIRECTORY", str(directory))
        .replace("LIFETIME", str(LIFETIME_S))
        .replace("SMALL", SMALL.decode())
        .replace("PORT", str(port))
    )
    return _start(path, directory, core, port, http, "nginx as origin")
