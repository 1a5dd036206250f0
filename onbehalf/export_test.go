package onbehalf

// Held returns the number of cached tokens and errors.
func (c *Client) Held() int {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	return len(c.table.entries)
}

// Idle reports whether nothing is in progress, and the cache accounts for what it holds.
func (c *Client) Idle() bool {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	var bytes int64
	for _, e := range c.table.entries {
		bytes += e.Value.(*entry).size()
	}
	return c.table.flying == 0 && c.table.waiting == 0 && len(c.table.callers) == 0 && len(c.table.asking) == 0 &&
		bytes == c.table.bytes && c.table.order.Len() == len(c.table.entries)
}
