//! Virtual clock, network, disks and PostgreSQL; scenarios, traces, model check.
