package signals

// SetCapacity sets the number of revocations that r holds for later watchers.
func SetCapacity(r *Receiver, n int) { r.feed.capacity = n }

// SetOwnClock makes the clock of the transmitter that of the issuer, although their ports differ.
func SetOwnClock(r *Receiver) { r.ownClock = true }
