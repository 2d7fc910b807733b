"""`python -m exemplars` is the command `exemplars`."""

from exemplars.cli import main

if __name__ == "__main__":
    main()
