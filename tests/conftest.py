"""Property tests try the same examples each time, and by no clock.

A test that fails only now and then, or only on a busy machine, tells nobody anything. New examples
are searched for on purpose: `tools/test -k laws --hypothesis-profile=search`.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("same")
