"""Models on disk: the reference functions on safetensors files of any size, tensor by tensor."""
