// Command dist builds the files of a release from the modules of one version:
//
//	dist -version v0.1.0 -source CHECKOUT -generated DIR -cyclonedx PROGRAM -o DIR
//
// It is run by scripts/dist, which see. For each target it writes an archive and a bill of materials (CycloneDX), for Linux also a deb and an
// rpm, and at the end checksums.txt, which covers all files in the folder. The programs come from go install MODULE@VERSION, so that they are
// the ones that anyone can install, and the checksum database vouches for their source. Nothing else enters the files but those of the
// checkout and the generated ones (see tools/man). Their time is SOURCE_DATE_EPOCH.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"errors"
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

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// pkg is the full build: who downloads a program wants no part of it to be missing.
const pkg = "github.com/valetkey/valetkey/cmd/valetkey/full/valetkey"

// A Release describes what to build.
type Release struct {
	Version   string   // of the modules, with v
	Targets   []string // GOOS/GOARCH
	Source    string   // a checkout of the version
	Generated string   // man1 and completions, from tools/man
	CycloneDX string   // path of the program cyclonedx-gomod
	Out       string
	Time      time.Time
}

func main() {
	var r Release
	targets := flag.String("targets", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64", "platforms")
	flag.StringVar(&r.Version, "version", "", "version of the modules, such as v0.1.0")
	flag.StringVar(&r.Source, "source", ".", "checkout of the version")
	flag.StringVar(&r.Generated, "generated", "", "folder with the manual pages and completions")
	flag.StringVar(&r.CycloneDX, "cyclonedx", "cyclonedx-gomod", "program that writes the bills of materials")
	flag.StringVar(&r.Out, "o", "", "folder for the files")
	flag.Parse()
	r.Targets = strings.Split(*targets, ",")
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	switch {
	case flag.NArg() > 0 || r.Out == "" || r.Generated == "" || !strings.HasPrefix(r.Version, "v"):
		flag.Usage()
		os.Exit(2)
	case err != nil:
		err = errors.New("SOURCE_DATE_EPOCH: a number of seconds is required")
	default:
		r.Time = time.Unix(seconds, 0).UTC()
		err = r.Build()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// Build writes all files.
func (r Release) Build() error {
	work, err := os.MkdirTemp("", "dist")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for _, target := range r.Targets {
		if err := r.target(target, filepath.Join(work, strings.ReplaceAll(target, "/", "_"))); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	return Checksums(r.Out)
}

func (r Release) target(target, work string) error {
	system, arch, _ := strings.Cut(target, "/")
	program, err := r.compile(system, arch, work)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("valetkey_%s_%s_%s", strings.TrimPrefix(r.Version, "v"), system, arch)
	out := filepath.Join(r.Out, name)
	// Without a serial number and a time, the bill is a function of the program.
	bill := exec.Command(r.CycloneDX, "bin", "-json", "-noserial", "-notimestamp", "-version", r.Version, "-output", out+".cdx.json", program)
	if text, err := bill.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", r.CycloneDX, err, text)
	}
	list, err := r.files(system, program)
	if err != nil {
		return err
	}
	if system == "windows" {
		err = writeTo(out+".zip", func(w io.Writer) error { return Zip(w, name, r.Time, list) })
	} else {
		err = writeTo(out+".tar.gz", func(w io.Writer) error { return TarGz(w, name, r.Time, list) })
	}
	if err != nil || system != "linux" {
		return err
	}
	return r.packages(arch, program, work)
}

// compile installs the program in a GOPATH below work, because go install refuses GOBIN for other platforms. The module cache remains the
// ordinary one.
func (r Release) compile(system, arch, work string) (string, error) {
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", err
	}
	install := exec.Command("go", "install", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", pkg+"@"+r.Version)
	install.Dir = work // no go.mod has a part in it
	install.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-modcacherw", "GOOS="+system, "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOPATH="+work, "GOBIN=", "GOMODCACHE="+strings.TrimSpace(string(cache)))
	if text, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s@%s: %w\n%s", pkg, r.Version, err, text)
	}
	program := path.Base(pkg)
	if system == "windows" {
		program += ".exe"
	}
	if system == runtime.GOOS && arch == runtime.GOARCH {
		return filepath.Join(work, "bin", program), nil
	}
	return filepath.Join(work, "bin", system+"_"+arch, program), nil
}

// A File is a file of an archive. It belongs to root.
type File struct {
	Name    string // slash-separated, below the folder of the archive
	Mode    int64
	Content []byte
}

// files returns the files of the archive for a system.
func (r Release) files(system, program string) ([]File, error) {
	paths := map[string]string{filepath.Base(program): program}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		paths[name] = filepath.Join(r.Source, name)
	}
	paths["proxy.yaml"] = filepath.Join(r.Source, "deploy/packages/proxy.yaml")
	patterns := map[string]string{"completions": filepath.Join(r.Generated, "completions", "*")}
	if system != "windows" {
		patterns["man/man1"] = filepath.Join(r.Generated, "man1", "*.1")
	}
	if system == "linux" {
		patterns["systemd"] = filepath.Join(r.Source, "deploy/systemd", "*")
	}
	for folder, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("no file matches %s", pattern)
		}
		for _, f := range found {
			paths[folder+"/"+filepath.Base(f)] = f
		}
	}
	var list []File
	for name, from := range paths {
		content, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		mode := int64(0o644)
		if from == program {
			mode = 0o755
		}
		list = append(list, File{name, mode, content})
	}
	return list, nil
}

func sorted(list []File) []File {
	return slices.SortedFunc(slices.Values(list), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
}

// TarGz writes an archive whose bytes depend on its arguments only, in any order of list.
func TarGz(w io.Writer, folder string, modified time.Time, list []File) error {
	compressed, err := gzip.NewWriterLevel(w, gzip.BestCompression) // without a name and a time
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, f := range sorted(list) {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: folder + "/" + f.Name, Mode: f.Mode, Size: int64(len(f.Content)), ModTime: modified, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(f.Content); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}

// Zip is [TarGz] for Windows. A zip has no owners.
func Zip(w io.Writer, folder string, modified time.Time, list []File) error {
	archive := zip.NewWriter(w)
	for _, f := range sorted(list) {
		header := &zip.FileHeader{Name: folder + "/" + f.Name, Method: zip.Deflate, Modified: modified}
		header.SetMode(os.FileMode(f.Mode))
		entry, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := entry.Write(f.Content); err != nil {
			return err
		}
	}
	return archive.Close()
}

// packages writes the deb and the rpm. They create no user, because the service has a dynamic one.
func (r Release) packages(arch, program, work string) error {
	deploy := func(name string) string { return filepath.Join(r.Source, "deploy", name) }
	completion := func(shell string) string { return filepath.Join(r.Generated, "completions", "valetkey."+shell) }
	contents := files.Contents{
		{Source: program, Destination: "/usr/bin/valetkey", FileInfo: &files.ContentFileInfo{Mode: 0o755}},
		{Source: deploy("packages/proxy.yaml"), Destination: "/etc/valetkey/proxy.yaml", Type: files.TypeConfigNoReplace},
		{Source: deploy("systemd/valetkey-proxy.service"), Destination: "/usr/lib/systemd/system/valetkey-proxy.service"},
		{Source: deploy("systemd/valetkey-proxy.socket"), Destination: "/usr/lib/systemd/system/valetkey-proxy.socket"},
		{Source: completion("bash"), Destination: "/usr/share/bash-completion/completions/valetkey"},
		{Source: completion("fish"), Destination: "/usr/share/fish/vendor_completions.d/valetkey.fish"},
		{Source: completion("zsh"), Destination: "/usr/share/zsh/vendor-completions/_valetkey", Packager: "deb"},
		{Source: completion("zsh"), Destination: "/usr/share/zsh/site-functions/_valetkey", Packager: "rpm"},
		{Source: filepath.Join(r.Source, "LICENSE"), Destination: "/usr/share/doc/valetkey/copyright", Packager: "deb"},
		{Source: filepath.Join(r.Source, "LICENSE"), Destination: "/usr/share/licenses/valetkey/LICENSE", Type: files.TypeRPMLicense, Packager: "rpm"},
	}
	pages, err := filepath.Glob(filepath.Join(r.Generated, "man1", "*.1"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		packed := filepath.Join(work, filepath.Base(page)+".gz")
		if err := pack(page, packed); err != nil {
			return err
		}
		contents = append(contents, &files.Content{Source: packed, Destination: "/usr/share/man/man1/" + filepath.Base(packed)})
	}
	for _, c := range contents {
		if c.FileInfo == nil {
			c.FileInfo = &files.ContentFileInfo{Mode: 0o644}
		}
		c.FileInfo.Owner, c.FileInfo.Group, c.FileInfo.MTime = "root", "root", r.Time
	}
	for _, format := range []string{"deb", "rpm"} {
		config := nfpm.Config{Info: nfpm.Info{
			Name: "valetkey", Arch: arch, Platform: "linux", Version: r.Version, Release: "1", Section: "net", Priority: "optional",
			Maintainer:  "The Valetkey maintainers <valetkey@users.noreply.github.com>",
			Description: "Verify OAuth 2.0 access tokens and guard HTTP servers with them.\nThe service valetkey-proxy is a reverse proxy that passes requests with a sufficient token.",
			Homepage:    "https://github.com/valetkey/valetkey", License: "Apache-2.0", MTime: r.Time, DisableGlobbing: true,
			Overridables: nfpm.Overridables{
				Contents:   contents,
				Recommends: []string{"ca-certificates"}, // for issuers with public certificates; the program itself needs nothing
				Umask:      0o022,
				Scripts:    nfpm.Scripts{PostInstall: deploy("packages/postinstall.sh"), PreRemove: deploy("packages/preremove.sh"), PostRemove: deploy("packages/postremove.sh")},
				RPM:        nfpm.RPM{BuildHost: "localhost"}, // otherwise that of this machine
			},
		}}
		info, err := config.Get(format)
		if err != nil {
			return err
		}
		info = nfpm.WithDefaults(info)
		if err := nfpm.PrepareForPackager(info, format); err != nil {
			return err
		}
		packager, err := nfpm.Get(format)
		if err != nil {
			return err
		}
		if err := writeTo(filepath.Join(r.Out, packager.ConventionalFileName(info)), func(w io.Writer) error { return packager.Package(info, w) }); err != nil {
			return err
		}
	}
	return nil
}

// pack compresses a manual page.
func pack(from, to string) error {
	page, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(page); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, packed.Bytes(), 0o644)
}

// Checksums writes checksums.txt with the SHA-256 of all other files in dir, as sha256sum --check reads it.
func Checksums(dir string) error {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		if e.Name() == "checksums.txt" {
			continue
		}
		file, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		digest := sha256.New()
		_, err = io.Copy(digest, file)
		file.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", digest.Sum(nil), e.Name())
	}
	return os.WriteFile(filepath.Join(dir, "checksums.txt"), []byte(sums.String()), 0o644)
}

// writeTo writes a file. A failed one is removed.
func writeTo(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(write(file), file.Close()); err != nil {
		os.Remove(path)
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}
