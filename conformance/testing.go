package conformance

import (
	"strings"
	"testing"
)

// Run runs the cases against a server, each as a subtest GROUP/ID. Cases of features that the target does not claim are skipped, as are
// slow ones with -short. A case that is not binding logs its failure.
//
//	func TestConform(t *testing.T) {
//		conformance.Run(t, conformance.Target{
//			URL:      "/orders",
//			Profiles: []conformance.Profile{conformance.ProfileBearer, conformance.ProfileRFC9068},
//			Start: func(ctx context.Context, s conformance.Setup) (*conformance.Server, error) {
//				server := httptest.NewServer(newAPI(s.Issuer, s.Audience))
//				return &conformance.Server{URL: server.URL, Close: server.Close}, nil
//			},
//		})
//	}
func Run(t *testing.T, target Target) {
	t.Helper()
	report, err := Check(t.Context(), target, Options{Rate: -1})
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range report.Results {
		t.Run(result.Case.Group+"/"+result.Case.ID, func(t *testing.T) {
			switch {
			case result.Verdict == NotOffered || result.Verdict == Skipped:
				t.Skipf("%s: %s", result.Verdict, strings.Join(result.Problems, ", "))
			case result.Verdict == Failed && result.Case.Strength.Binding():
				t.Error(result.String())
			case result.Verdict == Failed:
				t.Log(result.String())
			}
		})
	}
}
