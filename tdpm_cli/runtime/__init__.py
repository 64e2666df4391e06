"""The machine: processes, devices, files, locks, signals and the console."""
