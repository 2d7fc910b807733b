"""`python -m exemplars` is the command `exemplars`."""

from exemplars.cli import main

main()
