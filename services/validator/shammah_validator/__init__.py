"""Shammah: the validator."""
