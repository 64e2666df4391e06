"""What a run needs of the machine: checkpoints, batches, precision, processes, progress, signals."""
