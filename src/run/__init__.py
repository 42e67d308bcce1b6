"""Process and run management: start, signals, processes, devices, output files, ModelArts."""
