"""`python -m gradlab`: the command, also where its script is not on the path."""

from gradlab.cli import main

if __name__ == "__main__":
    main()
