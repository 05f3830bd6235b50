"""One process: one model version on one device slot. Decodes, batches, computes, merges."""
