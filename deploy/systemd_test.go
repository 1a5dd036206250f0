package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
)

// units returns the folder of a copy of the units, with a program that exists.
func units(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"valetkey-proxy.service", "valetkey-proxy.socket"} {
		text, err := os.ReadFile("systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.Replace(string(text), "ExecStart=/usr/bin/valetkey ", "ExecStart=/bin/true ", 1))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	t.Run("a mistake is found", func(t *testing.T) {
		dir := units(t)
		service := filepath.Join(dir, "valetkey-proxy.service")
		text, err := os.ReadFile(service)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(service, []byte(strings.Replace(string(text), "ProtectSystem=strict", "ProtectSystem=very", 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, _ := exec.Command(analyze, "verify", service).CombinedOutput(); !strings.Contains(string(out), "protect system value") {
			t.Errorf("got %s", out)
		}
	})
	t.Run("systemd reads the units without a warning", func(t *testing.T) {
		dir := units(t)
		out, err := exec.Command(analyze, "verify", filepath.Join(dir, "valetkey-proxy.service"), filepath.Join(dir, "valetkey-proxy.socket")).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "valetkey") { // others are about the units of this machine
				t.Error(line)
			}
		}
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("the service can do little else", func(t *testing.T) {
		out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=15", "--no-pager", filepath.Join(units(t), "valetkey-proxy.service")).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if i := strings.Index(string(out), "Overall exposure level"); i >= 0 {
			t.Logf("%s", out[i:])
		}
	})
}

// TestUnitNames proves what the program and the documentation refer to.
func TestUnitNames(t *testing.T) {
	for name, want := range map[string]string{
		"valetkey-proxy.service": "Type=notify\nExecStart=/usr/bin/valetkey proxy --config /etc/valetkey/proxy.yaml\nExecReload=/bin/sh -c 'kill -HUP ${MAINPID}'\n",
		"valetkey-proxy.socket":  "FileDescriptorName=proxy\n", // the name of the site; see web.Process
	} {
		file, err := os.Open("systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		options, err := unit.DeserializeOptions(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, o := range options {
			if slices.Contains([]string{"Type", "ExecStart", "ExecReload", "FileDescriptorName"}, o.Name) {
				got.WriteString(o.Name + "=" + o.Value + "\n")
			}
		}
		if got.String() != want {
			t.Errorf("%s: got\n%s", name, got.String())
		}
	}
}
