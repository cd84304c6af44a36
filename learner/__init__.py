"""How it learns: mixture, batches, objectives, optimiser, the loop, checkpoints."""
