"""Accepting: listeners, and the driver that joins a transport to exchanges."""
