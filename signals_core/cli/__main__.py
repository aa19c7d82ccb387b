"""`python -m signals_core.cli`."""

from signals_core.cli import main

if __name__ == "__main__":
    main()
