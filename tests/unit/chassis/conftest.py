"""Fixtures of the chassis's unit tests."""

from support.small_disk import small_disk

__all__ = ["small_disk"]
