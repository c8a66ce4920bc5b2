"""Everything said to Kubernetes: watches, server-side apply, the Lease, Events."""
