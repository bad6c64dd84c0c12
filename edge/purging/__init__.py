"""Purging: orders read, carried out, recorded, and sent on to the shields.

What a purge does to what is stored is `cache.purge`; here is how one comes to be.
"""
