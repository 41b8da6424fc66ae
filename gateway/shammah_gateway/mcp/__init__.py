"""The five tools over the Model Context Protocol: in the gateway by HTTP at /mcp, and `shammah mcp` for stdio."""
