//go:build race

package broken_test

// share is the part of the faults that TestMutationScore tries. The score does not depend on the race detector, with which a run takes minutes.
const share = 10
