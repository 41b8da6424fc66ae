"""Runs every part of Shammah on one machine, as child processes of one supervisor over one data folder."""
