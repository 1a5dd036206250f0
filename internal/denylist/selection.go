package denylist

import (
	"hash/maphash"

	"github.com/valetkey/valetkey"
)

// A Selection holds what a batch of revocations selects, whatever the time of issue is. It excludes most tokens at the cost of a few
// comparisons, before [List.Look] is asked about the rest. It is immutable.
type Selection struct {
	few       []valetkey.Revocation // at most maxFew; nil if there are more
	by        [kinds]map[name]struct{}
	fewPrints []kindPrint // of few
	prints    [kinds]map[uint32]struct{}
}

// Prints are short digests of what may select a token. They are compared in place of the claims where there are so many tokens that
// reading each from memory takes most of the time: 100,000 tokens take 25 ms with their claims. Two names may have the same print, so a
// match must be checked with [Selection.NamesToken].
type Prints [kinds]uint32

type kindPrint struct {
	kind  kind
	print uint32
}

var printSeed = maphash.MakeSeed()

// printOf returns the print of a value under an issuer. It is not zero.
func printOf(issuer, value string) uint32 {
	var h maphash.Hash
	h.SetSeed(printSeed)
	h.WriteString(issuer)
	h.WriteByte(0xff) // no UTF-8
	h.WriteString(value)
	return uint32(h.Sum64()) | 1
}

// PrintsOf returns the prints of t.
func PrintsOf(t *valetkey.Token) (p Prints) {
	for k, value := range [kinds]string{byID: t.ID(), bySubject: t.Subject(), bySession: t.SessionID(), byClient: t.ClientID()} {
		if value != "" || kind(k) == byIssuer {
			p[k] = printOf(t.Issuer(), value)
		}
	}
	return p
}

// May reports whether a token with these prints may be selected.
func (s *Selection) May(p *Prints) bool {
	for _, f := range s.fewPrints {
		if p[f.kind] == f.print {
			return true
		}
	}
	for k := range s.prints {
		if s.prints[k] == nil || p[k] == 0 {
			continue
		}
		if _, is := s.prints[k][p[k]]; is {
			return true
		}
	}
	return false
}

// A name is a value under an issuer.
type name struct{ issuer, value string }

// maxFew is the number of revocations up to which comparing with each is faster than a look-up.
const maxFew = 8

// Select returns what rs select. Malformed revocations select nothing.
func Select(rs []valetkey.Revocation) *Selection {
	s := &Selection{}
	for _, r := range rs {
		k, value, err := named(r)
		if err != nil {
			continue
		}
		p := printOf(r.Issuer, value)
		if len(rs) <= maxFew {
			s.few, s.fewPrints = append(s.few, r), append(s.fewPrints, kindPrint{k, p})
			continue
		}
		if s.by[k] == nil {
			s.by[k], s.prints[k] = make(map[name]struct{}), make(map[uint32]struct{})
		}
		s.by[k][name{r.Issuer, value}] = struct{}{}
		s.prints[k][p] = struct{}{}
	}
	return s
}

// Names reports whether a token with these claims is selected. Empty values are not.
func (s *Selection) Names(issuer, id, subject, client, session string) bool {
	for i := range s.few {
		r := &s.few[i]
		if (r.All || r.ID != "" && r.ID == id || r.Subject != "" && r.Subject == subject || r.ClientID != "" && r.ClientID == client ||
			r.SessionID != "" && r.SessionID == session) && r.Issuer == issuer {
			return true
		}
	}
	for k, value := range [kinds]string{byID: id, bySubject: subject, bySession: session, byClient: client} {
		if s.by[k] == nil || value == "" && kind(k) != byIssuer {
			continue
		}
		if _, is := s.by[k][name{issuer, value}]; is {
			return true
		}
	}
	return false
}

// NamesToken reports whether t is selected.
func (s *Selection) NamesToken(t *valetkey.Token) bool {
	return s.Names(t.Issuer(), t.ID(), t.Subject(), t.ClientID(), t.SessionID())
}
