"""A training process among several, for the tests that start and kill them:

    joined_run.py CONFIG RUN_DIR MESH COORDINATOR COUNT INDEX [SECONDS_A_STEP] [DIE_AT_SAVE]

With DIE_AT_SAVE the process kills itself in the middle of saving that step, when all that it writes is written and not
yet renamed: of process 0 the checkpoint, of another one its part.
"""

import os
import re
import signal
import sys
import time

from griffin_eqx.config import load_file
from griffin_eqx.mesh import parse_mesh
from griffin_eqx.processes import join
from griffin_eqx.sharding import virtual_devices


def die_at_save(step):
    rename = os.rename

    def dies_renaming(source, *rest, **options):
        if re.match(rf"{step}(-\d+)?\.", os.path.basename(source)):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, *rest, **options)

    os.rename = dies_renaming


def main(config, run_dir, mesh, coordinator, count, index, pause="0", death="0"):
    group = join(coordinator, int(count), int(index), seconds=60)
    shape = parse_mesh(mesh)
    virtual_devices(shape.num_devices // group.count)
    if int(death):
        die_at_save(int(death))
    from griffin_eqx.training.loop import train

    def stop(step):
        time.sleep(float(pause))
        return False

    result = train(load_file(config), run_dir=run_dir, mesh=shape, stop=stop)
    return 0 if result.finished else 130


if __name__ == "__main__":
    from griffin_eqx.errors import GriffinError

    try:
        code = main(*sys.argv[1:])
    except GriffinError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    sys.exit(code)
