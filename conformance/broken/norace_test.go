//go:build !race

package broken_test

// share is the part of the faults that TestMutationScore tries: every one.
const share = 1
