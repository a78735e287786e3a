"""The compositions: a problem and a plan become a report."""
