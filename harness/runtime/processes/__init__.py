"""Child processes: eval workers, a supervisor for groups, and the TCP ports they listen on."""
