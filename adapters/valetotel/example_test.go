package valetotel_test

import (
	"context"
	"fmt"
	"log"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetotel"
)

// A program passes the Observer to its guard and verifiers, and gives the SDK a reader that exports. In this example, the event
// is created directly and the reader is read directly.
func Example() {
	reader := sdkmetric.NewManualReader()
	sight, err := valetotel.New(valetotel.Config{
		MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
	})
	if err != nil {
		log.Fatal(err)
	}
	var observer valetkey.Observer = sight
	observer.Observe(context.Background(), valetkey.Event{
		Kind:     valetkey.RequestDecided,
		Status:   401,
		Reason:   "the token has expired",
		Duration: 80 * time.Microsecond,
	})

	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		log.Fatal(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		fmt.Println(m.Name, m.Unit)
	}
	// Output:
	// valetkey.request.decided {request}
	// valetkey.request.duration s
}
