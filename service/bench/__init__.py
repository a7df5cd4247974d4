"""`mgrl bench service`: a load of people who draw, and what the service makes of it."""
