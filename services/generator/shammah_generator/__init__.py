"""The generator role: continuous-batching text generation on ONNX Runtime, and the service around it."""
