"""One file per kind of process: glue between the core machines and the system.  Decides nothing."""
