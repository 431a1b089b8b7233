"""`python -m robustgen` is `robustgen`."""

from robustgen.cli import main

if __name__ == "__main__":
    main()
