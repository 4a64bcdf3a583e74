"""The compute plane: model, partition, data, optimizers, checkpoints, fusion. Never asyncio or the network."""
