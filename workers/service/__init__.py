"""The service: a process that holds runs which do not end when their input does."""
