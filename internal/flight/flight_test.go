package flight_test

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/flight"
)

func TestTable(t *testing.T) {
	t.Run("there is nothing to join before the start and after the landing", func(t *testing.T) {
		table := flight.Table[string, int]{}
		assert.Nil(t, table.Join("a"))
		f := table.Start("a")
		assert.Nil(t, table.Join("b"))
		assert.Same(t, f, table.Join("a"))
		assert.True(t, table.Land(f))
		assert.Nil(t, table.Join("a"))
		assert.Empty(t, table)
	})
	t.Run("a flight that nothing has joined lands", func(t *testing.T) {
		table := flight.Table[string, int]{}
		assert.True(t, table.Land(table.Start("a")))
		assert.Empty(t, table)
	})
	t.Run("all calls that joined get the result, and only once it is final", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			table := flight.Table[string, int]{}
			f := table.Start("a")
			results := make([]int, 10)
			var waiting sync.WaitGroup
			for i := range results {
				joined := table.Join("a")
				waiting.Go(func() {
					<-joined.Done()
					results[i] = joined.Result
				})
			}
			synctest.Wait()
			assert.Equal(t, make([]int, 10), results)
			f.Result = 7
			table.Land(f)
			waiting.Wait()
			for _, r := range results {
				assert.Equal(t, 7, r)
			}
		})
	})
	t.Run("a flight that was deleted is not joined, leaves its successor alone, and still lands", func(t *testing.T) {
		table := flight.Table[string, int]{}
		first := table.Start("a")
		joined := table.Join("a")
		clear(table)
		require.False(t, table.Has(first))
		second := table.Start("a")
		assert.Same(t, second, table.Join("a"))
		assert.False(t, table.Land(first))
		<-joined.Done()
		assert.True(t, table.Has(second))
		assert.True(t, table.Land(second))
	})
}
