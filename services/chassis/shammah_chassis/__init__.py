"""Shammah: the chassis."""
