package main_test

import (
	"reflect"
	"strings"
	"testing"

	vulnerabilities "github.com/valetkey/valetkey/tools/govulncheck"
)

const output = `{"config": {"scanner_name": "govulncheck"}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.0", "trace": [{"module": "example.com/m", "version": "v1.0.0"}]}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.0", "trace": [{"module": "example.com/m", "version": "v1.0.0", "package": "example.com/m/p"}]}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.0", "trace": [{"module": "example.com/m", "version": "v1.0.0", "package": "example.com/m/p", "function": "F"}, {"module": "own"}]}}
{"finding": {"osv": "GO-2", "trace": [{"module": "stdlib", "version": "v1.26.8", "package": "net/http", "function": "Serve"}]}}
`

func TestRead(t *testing.T) {
	t.Run("output that is not JSON is an error", func(t *testing.T) {
		if _, err := vulnerabilities.Read(strings.NewReader("{} No vulnerabilities found.")); err == nil {
			t.Error("no error")
		}
	})
	t.Run("a finding without a trace is an error", func(t *testing.T) {
		if _, err := vulnerabilities.Read(strings.NewReader(`{"finding": {"osv": "GO-1"}}`)); err == nil {
			t.Error("no error")
		}
	})
	t.Run("calls are distinguished from imports and requirements", func(t *testing.T) {
		found, err := vulnerabilities.Read(strings.NewReader(output))
		if err != nil {
			t.Fatal(err)
		}
		called := func(f vulnerabilities.Finding) bool { return f.Called }
		want := []string{"example.com/m v1.0.0: GO-1, fixed in v1.2.0", "stdlib v1.26.8: GO-2, fixed in no version"}
		if got := vulnerabilities.Summary(found, called); !reflect.DeepEqual(got, want) {
			t.Errorf("got %q", got)
		}
		if got := vulnerabilities.Summary(found[:2], called); got != nil {
			t.Errorf("got %q", got)
		}
	})
}

func TestAccepted(t *testing.T) {
	t.Run("an exception without a reason is an error", func(t *testing.T) {
		if _, err := vulnerabilities.Accepted("GO-1 example.com/m\n"); err == nil {
			t.Error("no error")
		}
	})
	t.Run("comments are skipped", func(t *testing.T) {
		got, err := vulnerabilities.Accepted("# why\n\nGO-1 example.com/m not reachable by requests\n")
		if want := map[string]string{"GO-1 example.com/m": "not reachable by requests"}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, %v", got, err)
		}
	})
}
