"""The fused model and its use."""
