// Package soak has tests only. They run two replicas of a guarded API for minutes or hours, with real tokens, issuers and Redis,
// while everything that may fail fails and returns. scripts/soak starts them.
package soak
