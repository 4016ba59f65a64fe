"""A block under a name that another distribution has."""

raise AssertionError("listing names imports nothing")
