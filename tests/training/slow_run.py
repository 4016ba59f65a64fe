"""A training process for the tests that interrupt one: `slow_run.py CONFIG RUN_DIR SECONDS_A_STEP`."""

import sys
import time

from griffin_eqx.config import load_file
from griffin_eqx.training.loop import train


def pause(step):
    time.sleep(float(sys.argv[3]))
    return False


if __name__ == "__main__":
    result = train(load_file(sys.argv[1]), run_dir=sys.argv[2], stop=pause)
    sys.exit(0 if result.finished else 130)
