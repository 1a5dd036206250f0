package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const page = "../docs/deploy.md"

// blocks returns the code blocks of the page in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	if len(all) == 0 {
		t.Fatalf("%s has no block %s", page, language)
	}
	return all
}

func TestDocsConfiguration(t *testing.T) {
	for _, text := range blocks(t, "yaml proxy") {
		path := filepath.Join(t.TempDir(), "proxy.yaml")
		write(t, path, text)
		checkFile(t, "proxy", path)
	}
}

func TestDocsValues(t *testing.T) {
	for _, text := range blocks(t, "yaml values") {
		objects := release(t, text)
		checkObjects(t, objects)
		checkConfiguration(t, objects)
	}
}

func TestDocsCompose(t *testing.T) {
	for _, text := range blocks(t, "yaml compose") {
		project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
			WorkingDir: t.TempDir(), ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: []byte(text)}},
		}, func(o *loader.Options) { o.SetProjectName("docs", true) })
		if err != nil {
			t.Fatal(err)
		}
		s := project.Services["valetkey"]
		if !s.ReadOnly || len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" {
			t.Errorf("the root is writable or the container has capabilities: %+v", s)
		}
		test := s.HealthCheck.Test
		if test[0] != "CMD" || test[1] != "/valetkey" {
			t.Fatalf("the health check %q needs a shell", test)
		}
		if code, out := command(t, test[2:]...); code != 1 { // nothing listens here
			t.Errorf("the health check: %d, %s", code, out)
		}
	}
}

// TestDocsCommands checks the commands of the page: those that build the images run, and the files in all others exist.
func TestDocsCommands(t *testing.T) {
	images := t.TempDir()
	built := false
	for _, text := range blocks(t, "sh") {
		for line := range strings.Lines(text) {
			line = strings.ReplaceAll(line, "/tmp/images", images)
			if strings.Contains(line, "go run ") {
				cmd := exec.Command("sh", "-c", line)
				cmd.Dir = ".."
				cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOWORK=") }) // as in a reader's shell
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s%s", line, out)
				}
				built = true
			}
			for _, word := range strings.Fields(line) {
				path := word
				if strings.HasPrefix(word, "deploy/") {
					path = filepath.Join("..", word)
				} else if strings.HasPrefix(word, "templates/") {
					path = filepath.Join(chart, word)
				} else if !strings.HasPrefix(word, images+"/") {
					continue
				}
				if _, err := os.Stat(path); err != nil {
					t.Errorf("%s: %v", strings.TrimSpace(line), err)
				}
			}
		}
	}
	if !built {
		t.Error("the page does not build the images")
	}
}

func TestDocsLinks(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
			t.Error(err)
		}
	}
}
