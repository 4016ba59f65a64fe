"""Several processes that train as one program: how they meet, agree, and notice that one is gone.

JAX's own multi-controller runtime (`jax.distributed`) computes over the devices of all. Beside it every process keeps
a line to process 0, which does what that runtime leaves open: mistakes are told before anything waits for anybody
(`meeting.py`), and decisions that depend on a machine are agreed and the end of a process is noticed (`group.py`).
"""

from griffin_eqx.processes.group import ALONE as ALONE
from griffin_eqx.processes.group import Group as Group
from griffin_eqx.processes.group import LostProcessError as LostProcessError
from griffin_eqx.processes.join import AUTO as AUTO
from griffin_eqx.processes.join import current as current
from griffin_eqx.processes.join import detect as detect
from griffin_eqx.processes.join import join as join
from griffin_eqx.processes.meeting import ProcessError as ProcessError
