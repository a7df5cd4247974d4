"""The systems that are trained on a frozen trunk: the paper's baselines, one file each, and MGRL itself."""
