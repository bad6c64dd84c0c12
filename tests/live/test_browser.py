"""Content codings as a browser meets them: Chromium, without a window, on a page of ours."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.live.harness import Node, Reply, ScriptedOrigin

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM: Final = shutil.which("chromium")
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]

SETS: Final = ("node.workers=1", "node.access_log=off")
LINE: Final = "The item of this number, and not of another: %d\n"
OLD: Final = "".join(LINE % number for number in range(2000))
NEW: Final = OLD.replace("another: 77\n", "others: 77\n")
FRESH: Final = ["cache-control: max-age=600", "vary: accept-encoding"]
# The browser's clock jumps where nothing is asked for. It keeps a dictionary in its own time.
PAGE: Final = """<!doctype html><pre id=told></pre><script>
async function told(target) {
  const answer = await fetch(target);
  return [answer.headers.get("content-encoding"), (await answer.text()).length];
}
(async () => {
  const first = await told("/text-1");
  let second = null;
  for (let tries = 0; tries < 1000 && second?.[0] !== "dcz"; tries++) {
    second = await told(`/text-2?${tries}`);
  }
  document.getElementById("told").textContent = JSON.stringify([first, second]);
})();
</script>"""


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"])
def test_a_browser_reads_what_is_coded_and_what_has_changed_since(
    coding: str, tmp_path: Path
) -> None:
    sets = (f'site.compress={{codings=["{coding}"], dictionaries=true}}', *SETS)
    with ScriptedOrigin() as origin, Node(origin.url, tmp_path, sets) as node:
        kind, plain = "content-type: text/html", "content-type: text/plain"
        origin.script("page", Reply.of(200, [*FRESH, kind], PAGE.encode()))
        dictionary = 'use-as-dictionary: match="/text-*"'
        origin.script("text-1", Reply.of(200, [*FRESH, plain, dictionary], OLD.encode()))
        origin.always("text-2", Reply.of(200, [*FRESH, plain], NEW.encode()))
        told = _told(f"http://localhost:{node.port}/page", tmp_path)
    (first, length), (second, new_length) = told
    assert (first, length, new_length) == (coding, len(OLD), len(NEW))
    assert second == "dcz"


def _told(url: str, place: Path) -> Any:
    """What the script of a page has written once it was through."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place}/data",
        "--virtual-time-budget=60000", "--dump-dom", url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    found = re.search('<pre id="told">(.+?)</pre>', done.stdout.decode())
    assert found is not None, done.stdout.decode()
    return json.loads(html.unescape(found[1]))
