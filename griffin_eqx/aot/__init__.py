"""The TPU compiler as a measuring instrument, with no TPU: jobs are compiled ahead of time and read.

`libtpu` holds the whole compiler. Installed beside JAX it makes every start of JAX look for a TPU, so it never
enters the user's environment: `environment` keeps a Python of its own for it, `session` runs jobs in a child
process of that Python, `child` and `probe` are what runs there, and `report` is what comes back. Nothing but
`child` and `probe` imports JAX.
"""
