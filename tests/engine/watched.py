"""train.py, as a user or torchrun starts it, that writes down the loss of each step and dies where it is told to.

WATCHED is a JSON object in the environment: `out`, the folder for losses-<rank>.jsonl; and, if so wished, `dies_at`, a step
counted from 1 before which rank `dying` (default 0) is killed, unless torchrun has restarted it; `states_at`, the only steps
after which a state is written.
"""

import json
import os
import signal
import sys
from pathlib import Path

import train
from errors import exit_code_of

TOLD = json.loads(os.environ.get("WATCHED", "{}"))
RANK, RESTARTS = int(os.environ.get("RANK", "0")), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


class Watched(train.Trainer):
    """Tells what each step lost."""

    def _step(self, part, generator):
        step = self.progress.step + 1
        if step == TOLD.get("dies_at") and TOLD.get("dying", 0) == RANK and not RESTARTS:
            os.kill(os.getpid(), signal.SIGKILL)
        loss, rate = super()._step(part, generator)
        with (Path(TOLD["out"]) / f"losses-{RANK}.jsonl").open("a") as losses:
            losses.write(json.dumps({"step": step, "loss": loss.item(), "restarts": RESTARTS}) + "\n")
        return loss, rate

    def _is_time_to_save(self):
        return self.progress.step in TOLD.get("states_at", ())


if __name__ == "__main__":
    train.Trainer = Watched
    sys.exit(exit_code_of(train.main, sys.argv[1:]))
