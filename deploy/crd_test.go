package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

// definitions are the modules whose files define kinds that the API server of Kubernetes does not have, and the folders of the files.
var definitions = map[string]string{
	"github.com/envoyproxy/gateway": "charts/gateway-crds-helm/templates/generated",
	"sigs.k8s.io/gateway-api":       "config/crd/experimental", // contains the standard channel
}

// schemas returns the schemas of these kinds by version and kind. The API server also sets defaults and evaluates rules in CEL, which
// the schemas do not contain.
var schemas = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	found := map[string]*jsonschema.Schema{}
	for module, folder := range definitions {
		list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
		list.Env = append(os.Environ(), "GOWORK=off")
		dir, err := list.Output()
		if err != nil {
			return nil, err
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), folder, "*.yaml"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			for _, document := range separator.Split(string(text), -1) {
				if err := define(found, document); err != nil {
					return nil, err
				}
			}
		}
	}
	return found, nil
})

func define(found map[string]*jsonschema.Schema, document string) error {
	var crd struct {
		Kind string
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if strings.Contains(document, "{{") { // the frame of a chart
		lines := slices.DeleteFunc(strings.Split(document, "\n"), func(line string) bool { return strings.HasPrefix(line, "{{") })
		document = strings.Join(lines, "\n")
	}
	if err := yaml.Unmarshal([]byte(document), &crd); err != nil || crd.Kind != "CustomResourceDefinition" {
		return err
	}
	for _, v := range crd.Spec.Versions {
		name := crd.Spec.Group + "/" + v.Name + " " + crd.Spec.Names.Kind
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft4) // OpenAPI 3.0: minimum and exclusiveMinimum as in draft 4
		url := "https://" + strings.ReplaceAll(name, " ", "/")
		if err := c.AddResource(url, any(v.Schema.OpenAPIV3Schema)); err != nil {
			return err
		}
		schema, err := c.Compile(url)
		if err != nil {
			return err
		}
		found[name] = schema
	}
	return nil
}

// checkSchema checks an object of the kind against its definition.
func checkSchema(kind string, document []byte) error {
	all, err := schemas()
	if err != nil || all[kind] == nil {
		return err
	}
	var object any
	if err := yaml.Unmarshal(document, &object); err != nil {
		return err
	}
	return all[kind].Validate(object)
}

func TestDefinitions(t *testing.T) {
	all, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	for kind := range kinds {
		if group, _, _ := strings.Cut(kind, "/"); strings.HasPrefix(group, "gateway.") && all[kind] == nil {
			t.Errorf("%s has no definition", kind)
		}
	}
	const policy = "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nmetadata: {name: a}\n"
	for name, text := range map[string]string{
		"a status that is not allowed": policy + "spec: {extAuth: {statusOnError: 200}}",
		"a backend without a name":     policy + "spec: {extAuth: {grpc: {backendRefs: [{port: 9000}]}}}",
		"a port out of range":          policy + "spec: {extAuth: {grpc: {backendRefs: [{name: a, port: 90000}]}}}",
		"no spec":                      policy,
	} {
		if err := checkSchema("gateway.envoyproxy.io/v1alpha1 SecurityPolicy", []byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
