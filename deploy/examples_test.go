package deploy_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"sigs.k8s.io/yaml"
)

const gateways = "../examples/gateways/"

// TestExamplesKubernetes decodes the objects of the examples for gateways, except for those of products that publish no Go types that
// build here (Istio, Contour, kgateway).
func TestExamplesKubernetes(t *testing.T) {
	files, err := filepath.Glob(gateways + "*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range separator.Split(string(text), -1) {
			var head struct{ APIVersion, Kind string }
			if err := yaml.Unmarshal([]byte(document), &head); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if kinds[head.APIVersion+" "+head.Kind] != nil {
				count += len(decoded(t, file, document))
			}
		}
	}
	if count < 7 {
		t.Errorf("%d objects", count)
	}
}

func TestExamplesCompose(t *testing.T) {
	files, err := filepath.Glob(gateways + "*/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no files")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
			WorkingDir: filepath.Dir(file), ConfigFiles: []types.ConfigFile{{Filename: file, Content: text}},
		}, func(o *loader.Options) { o.SetProjectName("example", true) })
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for _, s := range project.Services {
			for _, v := range s.Volumes {
				if _, err := os.Stat(v.Source); v.Type == types.VolumeTypeBind && err != nil {
					t.Errorf("%s: %s: %v", file, s.Name, err)
				}
			}
		}
	}
}
