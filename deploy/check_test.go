package deploy_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// program returns the path of the command as the image contains it.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "valetkey")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "valetkey")
	cmd := exec.Command("go", "build", "-C", "../cmd/valetkey/full", "-trimpath", "-buildvcs=false", "-tags=grpcnotrace", "-ldflags=-s -w -buildid=", "-o", path, "./gateway")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=") // as for the image, to share the results of the compiler
	if out, err := cmd.CombinedOutput(); err != nil {
		return path, errors.New(string(out))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, _ := program(); path != "" {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// command runs the command and returns its exit code and output.
func command(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

// checkConfiguration has the command examine the configuration of each container of Valetkey, with the files that the container sees.
func checkConfiguration(t *testing.T, objects []any) {
	t.Helper()
	for _, d := range all[*appsv1.Deployment](objects) {
		for _, c := range containers(d.Spec.Template.Spec) {
			if c.Name != "valetkey" {
				continue
			}
			root := t.TempDir()
			for name, content := range mounted(t, d.Spec.Template.Spec, c, objects) {
				write(t, filepath.Join(root, name), content)
			}
			checkFile(t, c.Args[0], filepath.Join(root, c.Args[2]))
		}
	}
}

func checkFile(t *testing.T, mode, path string) {
	t.Helper()
	if code, out := command(t, mode, "--check", "--config", path); code != 0 {
		text, _ := os.ReadFile(path)
		t.Errorf("valetkey %s --check: %d, %s\n%s", mode, code, out, text)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestChartRefusesSecrets gives the chart each secret that the configuration file can contain. A ConfigMap is not the place for it.
func TestChartRefusesSecrets(t *testing.T) {
	for mode, values := range minimal {
		code, out := command(t, "schema", mode)
		var schema map[string]any
		if err := json.Unmarshal([]byte(out), &schema); code != 0 || err != nil {
			t.Fatalf("%d, %v, %s", code, err, out)
		}
		found := secrets(schema)
		if len(found) < 5 {
			t.Fatalf("%s: %v", mode, found)
		}
		for _, config := range found {
			given, err := yaml.Marshal(map[string]any{"config": config})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := rendered(t, values, string(given)); err == nil || !strings.Contains(err.Error(), "false schema") {
				t.Errorf("%s: %s: got %v", mode, given, err)
			}
		}
	}
}

// secrets returns a value for each property of a schema that can also be in a file or a variable.
func secrets(schema map[string]any) (found []any) {
	if items, ok := schema["items"].(map[string]any); ok {
		for _, value := range secrets(items) {
			found = append(found, []any{value})
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, property := range properties {
		if properties[name+"_file"] != nil && properties[name+"_env"] != nil {
			found = append(found, map[string]any{name: "hunter2"})
		}
		if property, ok := property.(map[string]any); ok {
			for _, value := range secrets(property) {
				found = append(found, map[string]any{name: value})
			}
		}
	}
	return found
}

// TestConfigurations proves that the command reads what the chart writes, and finds its mistakes.
func TestConfigurations(t *testing.T) {
	t.Run("a mistake is found", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "proxy.yaml")
		write(t, path, "listen: :8080\nupstream: ftp://orders\n")
		if code, out := command(t, "proxy", "--check", "--config", path); code != 2 || !strings.Contains(out, "upstream: ") {
			t.Errorf("got %d, %s", code, out)
		}
	})
	for _, c := range []struct{ name, mode, values string }{
		{"a proxy", "proxy", ""},
		{"a proxy with everything", "proxy", everything},
		{"a proxy with a secret", "proxy", `
config: {verifiers: [{introspection: {issuer: https://as.example.com, client_id: orders, client_secret_file: introspection.secret}}]}
secretFiles: {introspection.secret: {name: orders-introspection, key: client-secret}}`},
		{"a proxy with an OpenAPI document", "proxy", `
config: {routes: null, openapi: openapi.yaml}
files:
  openapi.yaml: |
    openapi: 3.1.0
    info: {title: Orders, version: "1"}
    paths: {/health: {get: {security: [], responses: {"200": {description: ok}}}}}`},
		{"gRPC", "authorize", ""},
		{"HTTP", "authorize", "authorize: {grpc: false, http: true}\nconfig: {dialect: nginx}"},
		{"both", "authorize", "authorize: {http: true}\nconfig: {dialect: traefik}"},
	} {
		t.Run(c.name, func(t *testing.T) { checkConfiguration(t, release(t, minimal[c.mode], c.values)) })
	}
	t.Run("the sidecar", func(t *testing.T) { checkConfiguration(t, manifest(t, "sidecar.yaml")) })
	t.Run("Envoy Gateway", func(t *testing.T) { checkConfiguration(t, envoyGateway(t)) })
}
