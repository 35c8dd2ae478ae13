"""What a run will need, before it starts: architecture, memory, time, the machine, and the choice."""
