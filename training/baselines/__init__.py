"""The systems of the paper, one file each: the baselines, and MGRL itself. The trunk below may be frozen or not."""
