"""The trainer: rounds of training, certification, gate and publishing. The only part that may import torch."""
