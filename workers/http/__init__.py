"""The HTTP front end of a service: a process that knows nothing but the control socket."""
