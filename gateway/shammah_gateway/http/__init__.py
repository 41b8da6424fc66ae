"""The HTTP doors: Anthropic's and OpenAI's shapes in front of one gateway, and the byte pass-through to the teacher."""
