"""The demo's own workload: four categories that the student can learn and one that it cannot."""
