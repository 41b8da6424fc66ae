"""Shammah: the local."""
