"""Checkpoints and fused models in places beyond the swarm: a folder, a bucket, the Hugging Face hub."""
