"""The five tools: one registry, the same input schema and the same result behind every face."""
