"""`mgrl report`: every system on the same data in the same run, as tables, curves and one page."""
