"""The teaching loop: a planner that looks, teaches, trains and checks with the five tools, until a goal is reached."""
