"""What comes in while a run goes on: tools, sources, a person; all of it by one gate."""
