"""Bounds of the histograms, chosen once so that families can be divided by each other."""

# 1-2.5-5 steps. CIFAR ResNet-20 answers in about 1 ms, a multi-scale ResNet-152 in seconds, the default
# deadline is 30 s: 0.5 ms to 30 s.
SECONDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
# Batches double; 64 is the default of SERVE_MAX_BATCH_VIEWS, a larger one lands in +Inf.
VIEWS = (1, 2, 4, 8, 16, 32, 64)
# Finer near 1, where a trained classifier mostly is; under 0.5 the best class has no majority.
PROBABILITY = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
