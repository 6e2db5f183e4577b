"""Tasks, graders and the speed x tokens x accuracy report."""
