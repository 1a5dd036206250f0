package tokencache

// A queue holds records in insertion order. A removed record points to no other record, so a request that still carries its entry
// keeps nothing else in memory.
type queue struct {
	oldest, newest *record
	entries        int
	bytes          int64
}

func (q *queue) push(r *record) {
	r.older = q.newest
	if r.older == nil {
		q.oldest = r
	} else {
		r.older.newer = r
	}
	q.newest = r
	q.entries++
	q.bytes += int64(r.bytes)
}

func (q *queue) remove(r *record) {
	if r.older == nil {
		q.oldest = r.newer
	} else {
		r.older.newer = r.newer
	}
	if r.newer == nil {
		q.newest = r.older
	} else {
		r.newer.older = r.older
	}
	r.older, r.newer = nil, nil
	q.entries--
	q.bytes -= int64(r.bytes)
}
