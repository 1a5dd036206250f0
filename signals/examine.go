package signals

import "context"

// WellKnown returns the locations of the metadata of a transmitter, in the order in which a receiver tries them (SSF 1.0, section 7.2).
// It returns nil if transmitter is not a URL.
func WellKnown(transmitter string, legacy Legacy) []string {
	return wellKnown(transmitter, legacy.AllowRISCMetadata)
}

// Examine finds the stream of this receiver at the transmitter, as [Receiver.Run] does, and reads its status. It creates no stream, requests
// no event and stores nothing, so that a configuration can be checked before it is put into use. Of the result, StreamID, Stream,
// Delivered and Missing are set. It is the zero Status if Run would create a stream, and if the stream is unmanaged or there is none. The
// error wraps a [TokenError] if there is no access token.
func (r *Receiver) Examine(ctx context.Context) (Status, error) {
	if r.cfg.Delivery == NoStream || r.cfg.Stream.Unmanaged {
		return Status{}, nil
	}
	m, err := r.discover(ctx)
	if err != nil {
		return Status{}, err
	}
	var s *streamConfig
	if r.cfg.Stream.ID != "" {
		s, err = r.readOne(ctx, m, r.cfg.Stream.ID)
	} else {
		s, err = r.find(ctx, m)
	}
	if err != nil {
		return Status{}, err
	}
	if s == nil {
		return Status{}, nil
	}
	found := Status{StreamID: s.id, Delivered: s.delivered, Missing: s.missing}
	if m.status != "" {
		if err := r.readStatus(ctx, m, s.id); err != nil {
			return found, err
		}
		found.Stream = r.stream.status().Stream
	}
	return found, nil
}
