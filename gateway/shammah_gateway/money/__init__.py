"""What teacher calls cost and local answers save: usage, prices, caps and the ledger."""
