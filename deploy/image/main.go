// Command image builds the container images of valetkey without a container engine, and writes them as archives that docker load, podman
// load, kind load image-archive and crane push read:
//
//	GOWORK=off go run -C deploy ./image -o DIR
//
// DIR then contains valetkey-proxy.tar (the commands of a gateway) and valetkey.tar (these and OpenAPI documents), each with one platform.
// An image consists of one statically linked program and its license. It has no shell, no files of a system and no user names, runs as user
// 65532 and writes nothing to its file system. The same source and toolchain give the same bytes; see [Epoch].
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A Kind is one of the images.
type Kind struct {
	Name    string // of the image and its archive
	Module  string // folder of the module with the program
	Package string // in the module
	Limit   int64  // greatest size of the files in bytes
	Title   string
}

// Kinds are the images.
var Kinds = []Kind{
	{Name: "valetkey-proxy", Module: "cmd/valetkey", Package: "./gateway", Limit: 20e6, Title: "Valetkey: the proxy"},
	{Name: "valetkey", Module: "cmd/valetkey/full", Package: "./gateway", Limit: 30e6, Title: "Valetkey"},
}

const (
	// User is numeric: Kubernetes cannot check that a named user is not root. 65532 is the usual number of such users.
	User    = "65532:65532"
	program = "valetkey" // in the root of the image
	module  = "github.com/valetkey/valetkey"
	source  = "https://" + module
)

// command is the default command. It is the file that the chart and docs/deploy.md mount.
var command = []string{"proxy", "--config", "/etc/valetkey/proxy.yaml"}

// Options select the variant of an image.
type Options struct {
	Root    string // folder of the repository
	Arch    string // GOARCH; the system is Linux
	Version string // tag and label
	Release bool   // build the modules of Version instead of the folder Root, of which only the license is used
	Epoch   time.Time
}

func main() {
	log := func(err error) {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(2)
	}
	out := flag.String("o", "", "folder for the archives (required)")
	opts := Options{Root: ".."}
	flag.StringVar(&opts.Arch, "arch", "amd64", "amd64 or arm64")
	flag.StringVar(&opts.Version, "version", "dev", "tag of the images")
	flag.BoolVar(&opts.Release, "release", false, "build the published modules of -version, not this folder")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	var err error
	if opts.Epoch, err = Epoch(); err != nil {
		log(err)
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		log(err)
	}
	for _, k := range Kinds {
		img, err := Build(k, opts)
		if err != nil {
			log(err)
		}
		path := filepath.Join(*out, k.Name+".tar")
		if err := Write(path, k, opts, img); err != nil {
			log(err)
		}
		digest, err := img.Digest()
		if err != nil {
			log(err)
		}
		fmt.Println(path, digest)
	}
}

// Epoch returns the time of the files and of the image: SOURCE_DATE_EPOCH in seconds, by default 1970.
func Epoch() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Build compiles the program and returns the image. The error states the size if it is above the limit.
func Build(k Kind, opts Options) (v1.Image, error) {
	binary, err := compile(k, opts)
	if err != nil {
		return nil, err
	}
	license, err := os.ReadFile(filepath.Join(opts.Root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	if size := int64(len(binary) + len(license)); size > k.Limit {
		return nil, fmt.Errorf("%s has %d bytes, more than its limit of %d", k.Name, size, k.Limit)
	}
	files, err := archive(opts.Epoch, file{"LICENSE", 0o444, license}, file{program, 0o555, binary})
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: opts.Epoch}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(base, &v1.ConfigFile{
		OS: "linux", Architecture: opts.Arch, Created: created,
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User:       User,
			Entrypoint: []string{"/" + program},
			Cmd:        command,
			WorkingDir: "/",
			Labels: map[string]string{
				"org.opencontainers.image.title":    k.Title,
				"org.opencontainers.image.version":  opts.Version,
				"org.opencontainers.image.source":   source,
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: "deploy/image"}})
}

// compile returns the program: static, without symbols, paths, build IDs or the state of the repository. The tag removes pages of gRPC
// for debugging, whose templates would keep every method of every type in the program: a third of it.
func compile(k Kind, opts Options) ([]byte, error) {
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, program)
	flags := []string{"-trimpath", "-buildvcs=false", "-tags=grpcnotrace", "-ldflags=-s -w -buildid="}
	cmd := exec.Command("go", slices.Concat([]string{"build"}, flags, []string{"-o", out, k.Package})...)
	cmd.Dir = filepath.Join(opts.Root, k.Module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-modcacherw", "GOOS=linux", "GOARCH="+opts.Arch, "GOAMD64=v1", "GOARM64=v8.0")
	if opts.Release {
		cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
		if err != nil {
			return nil, err
		}
		cmd.Args = slices.Concat([]string{"go", "install"}, flags, []string{module + "/" + path.Join(k.Module, k.Package) + "@" + opts.Version})
		cmd.Dir = dir
		// go install refuses GOBIN for other platforms.
		cmd.Env = append(cmd.Env, "GOPATH="+dir, "GOBIN=", "GOMODCACHE="+strings.TrimSpace(string(cache)))
		out = filepath.Join(dir, "bin", path.Base(k.Package))
		if runtime.GOOS != "linux" || runtime.GOARCH != opts.Arch {
			out = filepath.Join(dir, "bin", "linux_"+opts.Arch, path.Base(k.Package))
		}
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s/%s: %w\n%s", k.Module, k.Package, err, text)
	}
	return os.ReadFile(out)
}

// A file is a file of an image. It belongs to root, so the program cannot replace itself.
type file struct {
	name    string
	mode    int64
	content []byte
}

func archive(modified time.Time, files ...file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: modified, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// Write writes the image as an archive with the tag of opts.
func Write(path string, k Kind, opts Options, img v1.Image) error {
	tag, err := name.NewTag(k.Name + ":" + strings.ReplaceAll(opts.Version, "+", "_"))
	if err != nil {
		return err
	}
	return tarball.WriteToFile(path, tag, img)
}
