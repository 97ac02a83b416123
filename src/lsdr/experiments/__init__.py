"""Methods x seeds on a task, into a run directory, and what came of it."""
