"""What people see in a terminal. Besides `cli/`, the only place that prints."""
