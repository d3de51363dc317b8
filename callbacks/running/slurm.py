"""Requeueing of the SLURM job that a run is part of."""

from __future__ import annotations

import logging
import os
import signal
import subprocess

log = logging.getLogger(__name__)


def in_slurm_job() -> bool:
    """Whether this process is part of a job."""
    return "SLURM_JOB_ID" in os.environ


def requeue() -> bool:
    """Put this job, or this task of its array, back into the queue. Returns whether SLURM took it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    # The number of an array's last task is that of the whole array, too.
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        log.warning("job %s is not requeued: %s", job, error)
        return False
    # SLURM ends the processes of a job that it requeues: this one may be among the first.
    if done.returncode not in (0, -signal.SIGTERM):
        log.warning("job %s is not requeued: %s", job, " ".join(done.stderr.split()))
        return False
    return True
