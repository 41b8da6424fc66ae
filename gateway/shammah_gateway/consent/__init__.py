"""Consent: who may do what, a log of what was done and of what left the machine, and masking of personal data."""
