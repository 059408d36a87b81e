"""`python -m gradiometer`: the command, also where its script is not on the path."""

from gradiometer.cli import main

if __name__ == "__main__":
    main()
