"""Exemplar Partitioning dictionaries of neural-network activations."""
