"""Data sets: CIFAR-10 in memory, images in folders decoded by workers."""
