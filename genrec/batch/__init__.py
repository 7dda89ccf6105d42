"""Make lists for many users at once, in shards that survive interruptions."""

from genrec.batch.job import TASKS, Job
from genrec.batch.plan import BatchError, Report
from genrec.batch.runner import ENGINES, run

__all__ = ["ENGINES", "TASKS", "BatchError", "Job", "Report", "run"]
