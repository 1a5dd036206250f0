package main_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	image "github.com/valetkey/valetkey/deploy/image"
)

const root = "../.."

var options = image.Options{Root: root, Arch: runtime.GOARCH, Version: "v1.2.3+test", Epoch: time.Unix(1_700_000_000, 0).UTC()}

// written returns the archive of each image, which is built once.
var written = func() func(t *testing.T, k image.Kind) string {
	builds := map[string]func() (string, error){}
	for _, k := range image.Kinds {
		builds[k.Name] = sync.OnceValues(func() (string, error) {
			dir, err := os.MkdirTemp("", k.Name)
			if err != nil {
				return "", err
			}
			img, err := image.Build(k, options)
			if err != nil {
				return dir, err
			}
			path := filepath.Join(dir, "image.tar")
			return path, image.Write(path, k, options, img)
		})
	}
	return func(t *testing.T, k image.Kind) string {
		t.Helper()
		path, err := builds[k.Name]()
		if err != nil {
			t.Fatal(err)
		}
		folders = append(folders, filepath.Dir(path))
		return path
	}
}()

var folders []string // to remove

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range folders {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// A file is a file of an image.
type file struct {
	header  tar.Header
	content []byte
}

// read returns the configuration and the files of an archive, which has one layer.
func read(t *testing.T, archive string) (*v1.ConfigFile, []file) {
	t.Helper()
	img, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(layers) != 1 {
		t.Fatalf("%d layers", len(layers))
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var files []file
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if err == io.EOF {
			return cfg, files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{*header, data})
	}
}

func TestImage(t *testing.T) {
	limits := map[string]int{"valetkey-proxy": 20_000_000, "valetkey": 30_000_000}
	if len(image.Kinds) != len(limits) {
		t.Fatalf("%d images", len(image.Kinds))
	}
	for _, k := range image.Kinds {
		t.Run(k.Name, func(t *testing.T) {
			cfg, files := read(t, written(t, k))

			t.Run("does not run as root or under a name", func(t *testing.T) {
				if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(cfg.Config.User) {
					t.Errorf("user %q", cfg.Config.User)
				}
			})
			t.Run("runs the proxy by default", func(t *testing.T) {
				got := slices.Concat(cfg.Config.Entrypoint, cfg.Config.Cmd)
				if want := []string{"/valetkey", "proxy", "--config", "/etc/valetkey/proxy.yaml"}; !slices.Equal(got, want) {
					t.Errorf("got %q", got)
				}
			})
			t.Run("has the platform, the version and the time of its build", func(t *testing.T) {
				if cfg.OS != "linux" || cfg.Architecture != runtime.GOARCH || !cfg.Created.Equal(options.Epoch) {
					t.Errorf("%s/%s of %v", cfg.OS, cfg.Architecture, cfg.Created)
				}
				if got := cfg.Config.Labels["org.opencontainers.image.version"]; got != options.Version {
					t.Errorf("version %q", got)
				}
			})
			t.Run("contains the program and its license, which only root can replace", func(t *testing.T) {
				var got []string
				for _, f := range files {
					h := f.header
					if h.Typeflag != tar.TypeReg || h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(options.Epoch) {
						t.Errorf("%s: %+v", h.Name, h)
					}
					got = append(got, fmt.Sprintf("%s %o", h.Name, h.Mode))
				}
				if want := []string{"LICENSE 444", "valetkey 555"}; !slices.Equal(got, want) {
					t.Errorf("got %q", got)
				}
			})
			t.Run("is not too large", func(t *testing.T) {
				size := 0
				for _, f := range files {
					size += len(f.content)
				}
				t.Logf("%d bytes", size)
				if size > limits[k.Name] {
					t.Errorf("%d bytes", size)
				}
			})
			t.Run("needs no loader and no library", func(t *testing.T) {
				program, err := elf.NewFile(bytes.NewReader(files[len(files)-1].content))
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range program.Progs {
					if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
						t.Errorf("has a segment %s", p.Type)
					}
				}
			})
			t.Run("contains certificate authorities", func(t *testing.T) {
				// Only a certificate of a public authority could prove more.
				info, err := buildinfo.Read(bytes.NewReader(files[len(files)-1].content))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(info.Deps, func(m *debug.Module) bool { return m.Path == "golang.org/x/crypto/x509roots/fallback" }) {
					t.Error("golang.org/x/crypto/x509roots/fallback is not a part of the program")
				}
			})
			t.Run("has its tag", func(t *testing.T) {
				tag, err := name.NewTag(k.Name + ":v1.2.3_test")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tarball.ImageFromPath(written(t, k), &tag); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestDocsSizes proves the limits that the guide states.
func TestDocsSizes(t *testing.T) {
	text, err := os.ReadFile("../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range image.Kinds {
		if row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| `+"`%s`"+` \|.*\| %d MB \|$`, k.Name, k.Limit/1_000_000)); !row.Match(text) {
			t.Errorf("no row matches %s", row)
		}
	}
}

func TestImageTooLarge(t *testing.T) {
	k := image.Kinds[0]
	k.Limit = 1_000_000
	if _, err := image.Build(k, options); err == nil || !strings.Contains(err.Error(), "more than its limit of 1000000") {
		t.Errorf("got %v", err)
	}
}

func TestEpoch(t *testing.T) {
	for _, c := range []struct{ text, want, mistake string }{
		{text: "yesterday", mistake: `SOURCE_DATE_EPOCH: "yesterday" is not a number of seconds`},
		{text: "1700000000", want: "2023-11-14T22:13:20Z"},
		{text: "", want: "1970-01-01T00:00:00Z"},
	} {
		t.Setenv("SOURCE_DATE_EPOCH", c.text)
		got, err := image.Epoch()
		if c.mistake != "" {
			if err == nil || err.Error() != c.mistake {
				t.Errorf("%q: got %v", c.text, err)
			}
		} else if text := got.Format(time.RFC3339); err != nil || text != c.want {
			t.Errorf("%q: got %s, %v", c.text, text, err)
		}
	}
}

// TestReproducible builds each image again from a copy of the source in another folder.
func TestReproducible(t *testing.T) {
	list, err := exec.Command("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":!docs", ":!benchmarks").Output()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	for path := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, path))
		if os.IsNotExist(err) {
			continue // removed, but not yet from the index
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(elsewhere, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range image.Kinds {
		first, err := tarball.ImageFromPath(written(t, k), nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := first.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		again := options
		again.Root = elsewhere
		img, err := image.Build(k, again)
		if err != nil {
			t.Fatal(err)
		}
		archive := filepath.Join(t.TempDir(), "image.tar")
		if err := image.Write(archive, k, again, img); err != nil {
			t.Fatal(err)
		}
		got, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: the configurations are %s and %s", k.Name, got, want)
		}
		a, err := os.ReadFile(written(t, k))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the archives differ", k.Name)
		}
	}
}

// TestContainerfile runs the build of the Containerfile without an engine and compares its last stage with the image.
func TestContainerfile(t *testing.T) {
	text, err := os.ReadFile("../Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	build, last, _ := strings.Cut(string(text), "\nFROM scratch\n")
	for _, k := range image.Kinds {
		cfg, files := read(t, written(t, k))
		t.Run(k.Name+" has the same program", func(t *testing.T) {
			module := regexp.MustCompile(`(?m)^ARG MODULE=(.*)$`).FindStringSubmatch(build)
			run := regexp.MustCompile(`(?m)^RUN (.*)$`).FindAllStringSubmatch(build, -1)
			if module == nil || len(run) != 1 {
				t.Fatalf("%d RUN, ARG MODULE: %q", len(run), module)
			}
			if k.Name == "valetkey" && module[1] != k.Module {
				t.Errorf("the default module is %s", module[1])
			}
			out := filepath.Join(t.TempDir(), "valetkey")
			cmd := exec.Command("sh", "-c", strings.Replace(run[0][1], "-o /valetkey ", "-o "+out+" ", 1))
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "GOFLAGS=", "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH, "MODULE="+k.Module)
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			program, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(program, files[len(files)-1].content) {
				t.Error("they differ")
			}
		})
		t.Run(k.Name+" has the same files and configuration", func(t *testing.T) {
			want := fmt.Sprintf("COPY --chmod=0444 LICENSE /LICENSE\nCOPY --chmod=0555 --from=build /valetkey /valetkey\nUSER %s\nENTRYPOINT [%s]\nCMD [%s]\n",
				cfg.Config.User, quoted(cfg.Config.Entrypoint), quoted(cfg.Config.Cmd))
			if last != want {
				t.Errorf("the last stage is\n%s, the image has\n%s", last, want)
			}
		})
	}
}

func quoted(words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, fmt.Sprintf("%q", w))
	}
	return strings.Join(all, ", ")
}

// keys is the public key of RFC 7515, appendix A.3.
const keys = `{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`

// TestRun runs each image as a container runtime does: in its own root, which is read-only, as its user.
func TestRun(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can change the root of a program")
	}
	for _, tool := range []string{"unshare", "mount", "chroot"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "from the upstream") }))
	defer upstream.Close()
	issuer := httptest.NewUnstartedServer(http.NotFoundHandler())
	issuer.Config.ErrorLog = log.New(io.Discard, "", 0) // of failed handshakes
	issuer.StartTLS()
	defer issuer.Close()

	routes := map[string]string{
		"valetkey-proxy": "routes: {\"GET /open\": \"@public\", \"GET /orders\": orders:read}\n",
		"valetkey":       "openapi: openapi.yaml\n",
	}
	for _, k := range image.Kinds {
		t.Run(k.Name, func(t *testing.T) {
			dir := unpacked(t, k)
			cfg, _ := read(t, written(t, k))
			for name, content := range map[string]string{
				"keys.json": keys,
				"openapi.yaml": `openapi: 3.1.0
info: {title: Orders, version: "1"}
components: {securitySchemes: {tokens: {type: oauth2, flows: {clientCredentials: {tokenUrl: https://as.example.com/token, scopes: {"orders:read": ""}}}}}}
paths:
  /open: {get: {security: [], responses: {"200": {description: ok}}}}
  /orders: {get: {security: [{tokens: [orders:read]}], responses: {"200": {description: ok}}}}
`,
				"proxy.yaml": "listen: 127.0.0.1:0\nprobe: 127.0.0.1:0\ndrain: 0s\nupstream: " + upstream.URL + "\nresource: https://api.example.com\n" + routes[k.Name] + `
verifiers:
  - jwks: {issuer: https://as.example.com, file: keys.json}
`,
			} {
				if err := os.WriteFile(filepath.Join(dir, "etc/valetkey", name), []byte(content), 0o444); err != nil {
					t.Fatal(err)
				}
			}

			t.Run("trusts the authorities in SSL_CERT_FILE", func(t *testing.T) {
				authorities := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Certificate().Raw})
				if err := os.WriteFile(filepath.Join(dir, "etc/valetkey/ca.pem"), authorities, 0o444); err != nil {
					t.Fatal(err)
				}
				for file, want := range map[string]string{"": "certificate signed by unknown authority", "/etc/valetkey/ca.pem": "404"} {
					cmd := contained(dir, cfg.Config, "doctor", "--issuer", issuer.URL, "--audience", "https://api.example.com")
					cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+file)
					if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), want) {
						t.Errorf("with %q: %s", file, out)
					}
				}
			})
			t.Run("guards and ends", func(t *testing.T) {
				cmd := contained(dir, cfg.Config, cfg.Config.Cmd...)
				stderr, err := cmd.StderrPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				var output strings.Builder
				addrs := map[string]string{} // by site
				lines := bufio.NewScanner(stderr)
				for len(addrs) < 2 && lines.Scan() {
					fmt.Fprintln(&output, lines.Text())
					if m := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)" site=(\w+)`).FindStringSubmatch(lines.Text()); m != nil {
						addrs[m[2]] = m[1]
					}
				}
				addr, probe := addrs["proxy"], addrs["probe"]
				if addr == "" || probe == "" {
					t.Fatalf("%v\n%s", cmd.Wait(), output.String())
				}
				go io.Copy(io.Discard, stderr)

				// chroot has replaced itself with the program.
				proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
				status, err := os.ReadFile(proc + "status")
				if err != nil {
					t.Fatal(err)
				}
				if !regexp.MustCompile(`(?m)^Uid:\t65532\t65532\t65532\t65532$`).Match(status) || !regexp.MustCompile(`(?m)^Groups:\s*(65532)?\s*$`).Match(status) {
					t.Errorf("the program runs as %s", status)
				}
				if err := os.WriteFile(proc+"root/written", nil, 0o600); err == nil || !strings.Contains(err.Error(), "read-only") {
					t.Errorf("writing to the root of the program: %v", err)
				}
				for path, want := range map[string]int{"/orders": 401, "/open": 200} {
					res, err := http.Get("http://" + addr + path)
					if err != nil {
						t.Fatal(err)
					}
					body, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if res.StatusCode != want {
						t.Errorf("%s: got %d, %s", path, res.StatusCode, body)
					}
				}
				if out, err := contained(dir, cfg.Config, "health", "http://"+probe+"/ready").CombinedOutput(); err != nil {
					t.Errorf("valetkey health: %v, %s", err, out)
				}
				cmd.Process.Signal(syscall.SIGTERM)
				if err := cmd.Wait(); err != nil {
					t.Errorf("after SIGTERM: %v", err)
				}
			})
		})
	}
}

// unpacked returns a folder with the files of the image and the empty folder that a runtime makes for a mount.
func unpacked(t *testing.T, k image.Kind) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etc/valetkey"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, files := read(t, written(t, k))
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.header.Name), f.content, os.FileMode(f.header.Mode)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// contained returns a command that runs the entry point in dir as the user of the configuration. The mounts end with the command.
func contained(dir string, cfg v1.Config, args ...string) *exec.Cmd {
	script := `mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && dir=$1 user=$2 && shift 2 && exec chroot --userspec="$user" --groups= "$dir" "$@"`
	cmd := exec.Command("unshare", slices.Concat([]string{"--mount", "--", "sh", "-c", script, "sh", dir, cfg.User}, cfg.Entrypoint, args)...)
	cmd.Env = []string{} // as the image has none
	return cmd
}
