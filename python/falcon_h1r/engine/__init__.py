"""The step loop: schedule, run, sample, commit. Knows nothing of thinking."""
