"""The command line: a thin gRPC client of the running gateway, and the starter of the local parts."""
