"""`python -m shammah_gateway.cli`: the same as the command `shammah`."""

from shammah_gateway.cli.entry import main

main()
