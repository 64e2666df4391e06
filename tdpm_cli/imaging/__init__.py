"""Images on disks and in memory: what the data parts are made of."""
