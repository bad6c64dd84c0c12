"""Documents as no node answers them: names that are known, with any values."""

from __future__ import annotations

from hypothesis import strategies as st

anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
names = st.sampled_from(
    ["url", "variant", "bytes", "age_s", "ttl_s", "hits", "state", "number", "when", "who",
     "scopes", "count", "everything", "purges", "faults", "path", "value", "message", "detail",
     "verdict", "request", "site", "rule", "rules", "cache", "key", "parts", "variants", "fields",
     "stored", "freshness", "lifetime_s", "arrived_s", "covering", "flight", "route", "at", "line",
     "stored_at", "conditions", "more", "title", "outcome", "says", "index", "purged",
     "coding"]
)  # fmt: skip
documents = st.recursive(
    st.dictionaries(names, anything),
    lambda inner: st.dictionaries(names, anything | st.lists(inner | anything) | inner),
)
