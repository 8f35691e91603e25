"""Pure: services, pools, upstreams, snapshots, and the state tables. Knows no I/O."""
