"""Shammah: the router."""
