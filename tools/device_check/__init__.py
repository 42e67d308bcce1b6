"""What tools/check_device.py runs: parts of the network, trainings, the exchange between processes, and the report of them."""
