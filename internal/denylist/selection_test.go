package denylist_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/denylist"
)

// A selection must name each token that a revocation is about, and few others may pass its prints.
func TestSelection(t *testing.T) {
	for _, size := range []int{1, 8, 9, 1000} {
		t.Run(fmt.Sprint(size, " revocations"), func(t *testing.T) {
			var rs []valetkey.Revocation
			for i := range size {
				rs = append(rs, revocation(i, fmt.Sprint(i), start.Add(time.Hour)))
			}
			rs = append(rs[:len(rs):len(rs)], valetkey.Revocation{ID: "malformed"})
			selected, falsely := denylist.Select(rs[:size]), 0
			for i := range size {
				about := token(i, fmt.Sprint(i), start)
				prints := denylist.PrintsOf(about)
				assert.True(t, selected.NamesToken(about), i)
				assert.True(t, selected.May(&prints), i)
				other := token(i, fmt.Sprint("other", i), start)
				prints = denylist.PrintsOf(other)
				assert.False(t, selected.NamesToken(other), i)
				if selected.May(&prints) {
					falsely++
				}
			}
			assert.LessOrEqual(t, falsely, 1)
			assert.False(t, denylist.Select(rs).NamesToken(valetkey.NewToken(valetkey.TokenFields{ID: "malformed"})))
			empty := valetkey.NewToken(valetkey.TokenFields{})
			prints := denylist.PrintsOf(empty)
			assert.False(t, selected.NamesToken(empty))
			assert.False(t, selected.May(&prints))
		})
	}
	t.Run("the same value of another issuer or another kind is not selected", func(t *testing.T) {
		selected := denylist.Select([]valetkey.Revocation{{Issuer: "i", Subject: "x"}})
		for _, f := range []valetkey.TokenFields{{Issuer: "j", Subject: "x"}, {Issuer: "i", SessionID: "x"}, {Issuer: "ix"}, {Issuer: "i", ID: "x", ClientID: "x"}} {
			about := valetkey.NewToken(f)
			prints := denylist.PrintsOf(about)
			assert.False(t, selected.NamesToken(about))
			assert.False(t, selected.May(&prints))
		}
	})
}
