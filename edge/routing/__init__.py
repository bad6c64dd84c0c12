"""Choosing: which site, which rule, which origin."""
