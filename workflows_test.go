package valetkey_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// runBlock returns the script of the step with the given name in a workflow.
func runBlock(t *testing.T, workflow, step string) string {
	t.Helper()
	_, after, found := strings.Cut(read(t, workflow), "- name: "+step+"\n")
	_, script, runs := strings.Cut(after, "        run: |")
	_, script, _ = strings.Cut(script, "\n") // a comment
	if !found || !runs {
		t.Fatalf("%s has no step %q with a script", workflow, step)
	}
	var lines []string
	for line := range strings.Lines(script) {
		code, inside := strings.CutPrefix(line, "          ")
		if !inside {
			break
		}
		lines = append(lines, code)
	}
	return strings.Join(lines, "")
}

// runStep runs a step of the workflow release.yml in dir as GitHub does on its machines, and returns what it prints.
func runStep(t *testing.T, dir, step string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("bash", "-e", "-c", runBlock(t, ".github/workflows/release.yml", step))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func writeAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o777); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReleaseWorkflow(t *testing.T) {
	for _, tool := range []string{"bash", "sha256sum", "awk"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	const sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  valetkey.deb\n" // of hello
	equal := map[string]string{
		"built/dist-first/checksums.txt": sum, "built/dist-first/valetkey.deb": "hello", "built/dist-second/checksums.txt": sum, "built/dist-second/valetkey.deb": "hello",
	}
	for _, c := range []struct {
		name, file, text string
		fails            bool
	}{
		{"two builds that differ", "built/dist-second/checksums.txt", strings.Replace(sum, "2", "3", 1), true},
		{"a file that differs from its checksum", "built/dist-first/valetkey.deb", "hallo", true},
		{"two equal builds", "", "", false},
	} {
		t.Run("compare "+c.name, func(t *testing.T) {
			files := maps.Clone(equal)
			if c.file != "" {
				files[c.file] = c.text
			}
			dir := t.TempDir()
			writeAll(t, dir, files)
			if out, err := runStep(t, dir, "Compare the two builds"); (err != nil) != c.fails {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	for _, c := range []struct{ version, kind string }{{"v0.1.0", "--latest"}, {"v0.2.0-rc.1", "--prerelease"}} {
		t.Run("publish "+c.version, func(t *testing.T) {
			dir := t.TempDir()
			writeAll(t, dir, equal)
			writeAll(t, dir, map[string]string{
				"scripts/changelog": read(t, "scripts/changelog"),
				"CHANGELOG.md":      "# Changelog\n\n## [Unreleased]\n\nlater\n\n## [" + c.version[1:] + "] - 2026-12-01\n\nthe notes\n",
				"bin/gh":            "#!/bin/sh\nfor a; do echo \"$a\"; case $a in */notes.md) cat \"$a\" ;; esac; done\n",
			})
			out, err := runStep(t, dir, "Publish", "PATH="+filepath.Join(dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
				"GITHUB_REF_NAME=cmd/valetkey/full/"+c.version, "RUNNER_TEMP="+dir)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			words := strings.Fields(out)
			for _, want := range []string{"cmd/valetkey/full/" + c.version, "--verify-tag", c.kind, c.version, "notes", "built/dist-first/checksums.txt", "built/dist-first/valetkey.deb"} {
				if !slices.Contains(words, want) {
					t.Errorf("gh does not get %q: %s", want, out)
				}
			}
			if strings.Contains(out, "later") {
				t.Errorf("the notes contain changes that are not released: %s", out)
			}
		})
	}
}

// TestPushedTags holds that the tag which starts the workflow is pushed alone: GitHub creates no event for a push of more than three tags.
func TestPushedTags(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not installed")
	}
	_, printing, found := strings.Cut(read(t, "scripts/release"), "\nstart=")
	if !found {
		t.Fatal("scripts/release does not choose the tag that starts the workflow")
	}
	tags := "adapters/valetgin/v0.1.0\ncmd/valetkey/full/v0.1.0\ncmd/valetkey/v0.1.0\ninternal/config/v0.1.0\nv0.1.0"
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", "start="+printing)
	cmd.Env = append(os.Environ(), "version=v0.1.0", "tags="+tags)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pushes := regexp.MustCompile(`(?m)^git push .*$`).FindAllString(string(out), -1)
	want := []string{"git push --atomic origin adapters/valetgin/v0.1.0 cmd/valetkey/v0.1.0 internal/config/v0.1.0 v0.1.0", "git push origin cmd/valetkey/full/v0.1.0"}
	if !slices.Equal(pushes, want) {
		t.Errorf("got %q", pushes)
	}
	if pattern := `tags: ["cmd/valetkey/full/v*"]`; !strings.Contains(read(t, ".github/workflows/release.yml"), pattern) {
		t.Errorf("release.yml has no %s", pattern)
	}
}
