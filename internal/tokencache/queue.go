package tokencache

// A queue holds entries in the order in which they came. An entry that has left it points to no other: a request that
// still carries it keeps nothing else in memory.
type queue struct {
	oldest, newest *Entry
	entries        int
	bytes          int64
}

func (q *queue) push(e *Entry) {
	e.older = q.newest
	if e.older == nil {
		q.oldest = e
	} else {
		e.older.newer = e
	}
	q.newest = e
	q.entries++
	q.bytes += int64(e.bytes)
}

func (q *queue) remove(e *Entry) {
	if e.older == nil {
		q.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		q.newest = e.older
	} else {
		e.newer.older = e.older
	}
	e.older, e.newer = nil, nil
	q.entries--
	q.bytes -= int64(e.bytes)
}
