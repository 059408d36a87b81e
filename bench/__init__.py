"""How fast dp is, next to its peers and to the best loop written by hand; see README.md."""
