"""Reads annotation files into records, and turns records into samples and batches. Independent of the network."""
