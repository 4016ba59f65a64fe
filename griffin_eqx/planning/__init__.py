"""What a training or a decoding step would need on a machine that is not here: does it fit, and what bounds it.

Data flows one way: `targets` names machines; `order` says what to compile; `child` compiles it in another process,
for that machine, and reads what came out with `collectives`; `plan` puts the readings together and draws the
conclusions. Nothing but `child` and `programs` compiles anything.
"""
