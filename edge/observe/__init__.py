"""Observing: the record of each request, the logs, and what is counted, told and scraped."""
