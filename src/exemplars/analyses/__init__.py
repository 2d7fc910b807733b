"""The questions one asks of a dictionary: a function and a frozen result with its null each."""
