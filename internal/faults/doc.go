// Package faults has tests only. They show what a guard does when an issuer's endpoints go wrong, over real sockets, and
// write docs/faults.md; and how long a revoked token is accepted.
package faults
