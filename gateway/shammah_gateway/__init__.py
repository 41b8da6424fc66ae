"""Shammah: the gateway."""
